/* The engine of `featinv evaluate` (paper, section 4: tables and figures).
 *
 * The work is a list of tasks that the settings fix: a kind of picture (drawn, round trip of the
 * autoencoder, ...) of one model over a set of images. A task is cut into parts of --batch images;
 * a part draws its pictures, measures them and leaves one file in DIR/parts. Part p of the whole
 * list belongs to shard p mod N. Tables are made from the files of all parts, so they do not know
 * who wrote them, or when. */
#ifndef CLI_EVALUATE_H
#define CLI_EVALUATE_H

#include "../inputs.h"

#include <jansson.h>

enum {
    EVALUATE_MOST_NETWORKS = CLI_MOST_TEXTS + 1, /* the last is that of --fid-features */
    EVALUATE_MOST_SLOTS = EVALUATE_MOST_NETWORKS,
    EVALUATE_HASH = 16 /* digits of a hash as text */
};

/* ---------------------------------------------------------------- images --------------------- */

typedef struct evaluate_image {
    char *id, *path;     /* id: relative to the folder */
    int32_t class_index; /* -1: none */
    uint64_t key;        /* hash of --seed and id: the order of the images */
    uint64_t noise;      /* seed of its noise: --seed and a hash of its id */
} evaluate_image;

typedef struct evaluate_set {
    evaluate_image *images; /* by key; behind `count` those that only are partners of others */
    int64_t count, total;
    char **classes;
    int32_t class_count;
    int64_t *same;     /* (count): another image of the class, -1: there is none */
    int64_t *by_class; /* (count): the images class by class */
    int64_t *pairs;    /* (pair_count, 2): images A and B of different classes, each in one pair */
    int64_t pair_count;
    uint64_t hash; /* of ids, classes, sizes and times of the files */
} evaluate_set;

/* images.c: the first `per_class` of each class of --data, in the order of their keys; of a folder
 * without classes (--ood) all. `skipped`: a folder below that is none of it (the output), or NULL.
 * Return an exit code, after an error. */
int evaluate_set_labelled(evaluate_set *out, const char *folder, const char *skipped, uint64_t seed,
                          int32_t per_class);
int evaluate_set_plain(evaluate_set *out, const char *folder, const char *skipped, uint64_t seed);
void evaluate_set_free(evaluate_set *set);

/* Files below a folder, sorted; folders that hold none are left out. */
int evaluate_files(cli_inputs *out, const char *folder, const char *skipped);

/* ---------------------------------------------------------------- networks ------------------- */

/* A model, or the network of --fid-features. */
typedef struct evaluate_network {
    cli_values values; /* with its own --model */
    cli_opened opened;
    featinv_sample_options sampling; /* the bundle's defaults and --steps; of models */
    int64_t channels, positions, classes;
    char *base;         /* hash that is equal for models with the same diffusion base */
    char *backbone;     /* hash of the backbone's weights, NULL without */
    bool reads_classes; /* has a context for a class of the images */
} evaluate_network;

/* networks.c */
int evaluate_network_open(evaluate_network *out, const cli_values *values, const char *path,
                          bool draws);
void evaluate_network_close(evaluate_network *network);
/* "class:NAME", also with blanks for the underscores of a folder's name: the bundle's own text, or
 * NULL. */
const char *evaluate_class_context(const evaluate_network *network, const char *class_name);

/* ---------------------------------------------------------------- plan ----------------------- */

typedef enum {
    EVALUATE_FLOOR,       /* other originals in place of pictures */
    EVALUATE_DRAWN,       /* from the map, at the bundle's defaults */
    EVALUATE_CLASS,       /* from the class prompt alone, without ControlNet */
    EVALUATE_AUTOENCODER, /* round trip of the original */
    EVALUATE_SCALE,       /* drawn at another guidance scale, hint scale 1 */
    EVALUATE_MIX,         /* from mixed maps of two images */
    EVALUATE_OOD          /* as DRAWN, of the images of --ood */
} evaluate_kind;

/* What is compared in one network. */
typedef struct evaluate_slot {
    int32_t network;
    bool positions; /* the cosines of all positions are kept */
    bool rows;      /* pooled features are kept for the Fréchet distance */
} evaluate_slot;

typedef struct evaluate_task {
    evaluate_kind kind;
    int32_t model;         /* that draws; of FLOOR: the network */
    double value;          /* guidance scale, or weight of a mix */
    int64_t count;         /* images, of MIX pairs */
    bool with_gradient;    /* luminance gradients of original and picture are kept */
    bool writes_originals; /* into pictures/ */
    /* FLOOR: shuffled, same class; MIX: mixed, A, B; else one for each network */
    evaluate_slot slots[EVALUATE_MOST_SLOTS];
    int32_t slot_count;
    int64_t first_part, part_count;
    char name[48]; /* of its files */
} evaluate_task;

enum {
    EVALUATE_TABLE_1 = 1,
    EVALUATE_TABLE_2 = 2,
    EVALUATE_TABLE_3 = 4,
    EVALUATE_TABLE_SWEEP = 8,
    EVALUATE_TABLE_MIX = 16,
    EVALUATE_TABLE_OOD = 32
};

/* Guidance scale of class prompts, which are drawn without a map: a bundle's default is chosen for
 * drawing from maps and says nothing here. tables.json names it. */
#define EVALUATE_CLASS_SCALE 3.0

typedef struct evaluate {
    const cli_values *values;
    uint64_t seed;
    int32_t tables; /* EVALUATE_TABLE_ bits */
    int32_t per_class, pictures, bootstrap;
    double *scales, *weights;
    int32_t scale_count, weight_count;
    evaluate_set set, ood;
    evaluate_network networks[EVALUATE_MOST_NETWORKS];
    int32_t model_count;
    int32_t reference; /* number of the network of --fid-features, -1: none */
    int32_t network_count;
    int64_t batch; /* images of a part */
    evaluate_task *tasks;
    int32_t task_count;
    int64_t part_count;
    json_t *settings; /* what shards and resumes must agree on */
    char settings_hash[EVALUATE_HASH + 1];
    json_t *reported; /* inputs whose problem was printed */
    bool has_problems;
    cli_progress progress;
} evaluate;

/* plan.c */
int evaluate_tables_read(int32_t *tables, const char *text);
/* {"1", "2", ...} */
json_t *evaluate_tables_json(int32_t tables);
int evaluate_plan(evaluate *e);
const evaluate_task *evaluate_task_of(const evaluate *e, int64_t part);
/* Index of the task of that kind, model and value; NULL: there is none. */
const evaluate_task *evaluate_find_task(const evaluate *e, evaluate_kind kind, int32_t model,
                                        double value);
/* Slot of a network, -1: not measured there. */
int32_t evaluate_find_slot(const evaluate_task *task, int32_t network);
/* The network whose features the Fréchet distance of a model's pictures is taken in. */
int32_t evaluate_frechet_network(const evaluate *e, int32_t model);
/* Whether the model has rows in Table 1 or 3. */
bool evaluate_has_rows(const evaluate *e, int32_t model);
/* The scale at which the sweep of a model shows what Table 1 shows. */
bool evaluate_is_default_scale(const evaluate *e, int32_t model, double scale);
/* Image of item i of a task; of a mix A. */
int64_t evaluate_item_image(const evaluate *e, const evaluate_task *task, int64_t item);
const evaluate_set *evaluate_task_set(const evaluate *e, const evaluate_task *task);
/* "pictures/0003-m0-drawn.png": picture of an image by a task, task NULL: the original. */
void evaluate_picture_name(char text[96], const evaluate_task *task, int64_t image);

/* ---------------------------------------------------------------- measured ------------------- */

/* Per image: NaN where unknown. */
enum {
    EVALUATE_MEDIAN,  /* cosine, median over positions */
    EVALUATE_CENTRED, /* the same with the bundle's channel mean removed */
    EVALUATE_POOLED,  /* cosine of the maps' spatial means */
    EVALUATE_TOP1,    /* 0 or 1 */
    EVALUATE_TOP5,
    EVALUATE_FIGURES
};

/* What a part, or a whole task, has measured. */
typedef struct evaluate_block {
    int64_t count;
    double *figures[EVALUATE_MOST_SLOTS];   /* (count, EVALUATE_FIGURES) */
    double *positions[EVALUATE_MOST_SLOTS]; /* (count, positions) or NULL */
    float *rows[EVALUATE_MOST_SLOTS];       /* (count, channels) or NULL */
    double *gradient;                       /* (count, 2): original's, picture's; or NULL */
    json_t *problems;                       /* [{"input", "error"}...] */
} evaluate_block;

/* block.c */
int evaluate_block_make(evaluate_block *out, const evaluate *e, const evaluate_task *task,
                        int64_t count);
void evaluate_block_free(evaluate_block *block);
/* Item i becomes item to[i]. */
int evaluate_block_reorder(evaluate_block *block, const evaluate *e, const evaluate_task *task,
                           const int64_t *to);

/* measure.c: compares map b with map a (channels, positions) of a network: item's entries of a
 * slot. matches: top-1 and top-5, NaN unknown. */
int evaluate_compare(evaluate_block *block, const evaluate_slot *slot, int32_t slot_index,
                     int64_t item, const evaluate_network *network, const float *a, const float *b,
                     const double matches[2]);
/* Spatial means in double, rounded once. */
void evaluate_pool(float *out, const float *map, int64_t channels, int64_t positions);
/* Whether the best class of a is among the best 1 and 5 of b; NaN without logits. */
void evaluate_matches(double matches[2], const float *a, const float *b, int64_t classes);
/* Mean length of the luminance gradient of 8-bit RGB. */
double evaluate_gradient(const uint8_t *pixels, int32_t width, int32_t height);

/* ---------------------------------------------------------------- parts ---------------------- */

/* store.c: the output folder. */
int evaluate_store_open(const evaluate *e);
/* Error where another evaluation has taken the folder since: nothing may be written any more. */
int evaluate_store_check(const evaluate *e);
bool evaluate_part_is_there(const evaluate *e, int64_t part);
int64_t evaluate_parts_there(const evaluate *e);
int evaluate_part_write(const evaluate *e, int64_t part, const evaluate_block *block);
/* All parts of a task as one block, in the order of the images. */
int evaluate_task_read(evaluate_block *out, const evaluate *e, const evaluate_task *task);

/* work.c: does one part. CLI_INTERRUPTED: nothing of it is there. */
int evaluate_work(evaluate *e, int64_t part);

/* The photos of some images while a part is made. */
typedef struct evaluate_photos {
    cli_inputs inputs; /* borrowed paths */
    cli_photos *read;
    const featinv_image *images; /* (inputs.count), pixels NULL: could not be read */
} evaluate_photos;

/* photos.c: problems are noted in block. */
int evaluate_photos_read(evaluate_photos *out, evaluate *e, evaluate_block *block,
                         const evaluate_set *set, const int64_t *which, int64_t count);
void evaluate_photos_free(evaluate_photos *photos);
/* The crops that a model's backbone sees, at the generator's size: U8 (count, H, W, 3). */
int evaluate_references(uint8_t *out, const evaluate *e, const evaluate_network *network,
                        const char *const *paths, int64_t count);

/* floors.c */
int evaluate_work_floor(evaluate *e, const evaluate_task *task, evaluate_block *block,
                        int64_t first);

/* draw.c: pictures U8 (count, H, W, 3) of a model. */
/* From maps with each image's own noise. */
int evaluate_draw(uint8_t *pictures, evaluate *e, int32_t model, const evaluate_task *task,
                  float *maps, const evaluate_image *const *images, int64_t count);
/* Without ControlNet, from the contexts of the images' classes; images of a class together. */
int evaluate_draw_classes(uint8_t *pictures, evaluate *e, int32_t model,
                          const evaluate_image *const *images, int64_t count);
/* From pictures of the generator's size, through encoder and decoder. */
int evaluate_round_trip(uint8_t *pictures, evaluate *e, int32_t model, const uint8_t *originals,
                        int64_t count);
/* Error of a call in a network's session. */
int evaluate_fail(const evaluate_network *network, featinv_status status);
int evaluate_extract(float *maps, float *logits, const evaluate_network *network,
                     const featinv_image *photos, int64_t count);

/* ---------------------------------------------------------------- figures -------------------- */

typedef struct evaluate_figure {
    double value, low, high; /* NaN where unknown */
    double mean;             /* of the resamples */
} evaluate_figure;

/* resample.c: seeded resamples of `images` images, the same for every figure. */
typedef struct evaluate_resamples {
    int32_t count;
    int64_t images;
    uint32_t *weights; /* (count, images): how often each is drawn */
} evaluate_resamples;

int evaluate_resamples_make(evaluate_resamples *out, int64_t images, int32_t count, uint64_t seed);
void evaluate_resamples_free(evaluate_resamples *resamples);

/* A statistic of images that are there `weights` times each; weights NULL: once. */
typedef double (*evaluate_statistic)(const void *data, const uint32_t *weights);
/* Value and percentiles 2.5 and 97.5 over the first `count` resamples. */
int evaluate_interval(evaluate_figure *out, const evaluate_resamples *resamples, int32_t count,
                      evaluate_statistic statistic, const void *data);

/* statistics.c: figures of columns, `stride` apart, over all images; NaN is left out. */
typedef struct evaluate_column {
    const double *values; /* NULL: none */
    int64_t stride;
} evaluate_column;
int evaluate_mean(evaluate_figure *out, const evaluate_resamples *r, evaluate_column column);
int evaluate_ratio(evaluate_figure *out, const evaluate_resamples *r, evaluate_column above,
                   evaluate_column below);
/* (mean - floor) / (ceiling - floor) */
int evaluate_share(evaluate_figure *out, const evaluate_resamples *r, evaluate_column values,
                   evaluate_column floor, evaluate_column ceiling);
/* Median of all values (images, each). */
int evaluate_median(evaluate_figure *out, const evaluate_resamples *r, const double *values,
                    int64_t each);
/* Fréchet distance of rows (images, dimension); images that lack one in either are left out. */
int evaluate_frechet(evaluate_figure *out, const evaluate_resamples *r, const cli_values *values,
                     const float *originals, const float *pictures, int64_t dimension);
/* How many resamples the interval of a Fréchet distance takes. */
int32_t evaluate_frechet_resamples(int32_t bootstrap, int64_t dimension);

/* ---------------------------------------------------------------- tables --------------------- */

/* tables.c: the content of tables.json from the parts: fresh. */
int evaluate_tables(json_t **out, evaluate *e);
json_t *evaluate_figure_json(evaluate_figure figure); /* null where there is none */
json_t *evaluate_numbers_json(const double *values, int32_t count);
/* "cpu" or "cuda": which of a machine's equal devices computes does not matter. */
json_t *evaluate_device_json(const evaluate *e);
/* A figure's mean over a column of a slot; slot -1: null. */
int evaluate_put_mean(json_t *to, const char *key, const evaluate_resamples *resamples,
                      const evaluate_block *block, int32_t slot, int32_t figure);
/* rows.c: `rows` of Tables 1 and 3. */
int evaluate_rows(json_t *rows, const evaluate *e, const evaluate_resamples *resamples);
/* series.c */
int evaluate_cross(json_t *rows, const evaluate *e, const evaluate_resamples *resamples);
int evaluate_sweep(json_t *rows, const evaluate *e, const evaluate_resamples *resamples);
int evaluate_mixes(json_t *rows, const evaluate *e);
int evaluate_ood(json_t *rows, const evaluate *e);
/* shown.c: the pictures and the problems of all tasks. */
int evaluate_shown(json_t *pictures, json_t *problems, const evaluate *e);

#endif
