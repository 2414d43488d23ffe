#include "arrays.h"
#include "train.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---------------------------------------------------------------- folders -------------------- */

/* nftw hands its caller's state to nobody. */
static struct {
    char **paths;
    size_t count, capacity;
    struct stat state;                  /* of the training's own folder; its pictures are no data */
    bool has_state, failed, unreadable; /* failed: no memory; unreadable: reported */
} walk;

static int visit(const char *path, const struct stat *info, int kind, struct FTW *place) {
    if (kind != FTW_D && kind != FTW_DNR)
        return FTW_CONTINUE;
    if (place->level > 0 && path[place->base] == '.')
        return FTW_SKIP_SUBTREE;
    if (kind == FTW_DNR) {
        walk.unreadable = true;
        (void)cli_fail(CLI_INPUT, "%s: this folder cannot be read", path);
        return FTW_STOP;
    }
    if (walk.has_state && info->st_dev == walk.state.st_dev && info->st_ino == walk.state.st_ino)
        return FTW_SKIP_SUBTREE;
    if (walk.count == walk.capacity) {
        size_t grown = walk.capacity ? 2 * walk.capacity : 16;
        char **paths = realloc(walk.paths, grown * sizeof *paths);
        walk.failed = !paths;
        if (!paths)
            return FTW_STOP;
        walk.paths = paths;
        walk.capacity = grown;
    }
    walk.paths[walk.count] = strdup(path);
    walk.failed = !walk.paths[walk.count];
    if (walk.failed)
        return FTW_STOP;
    walk.count++;
    return FTW_CONTINUE;
}

static int compare_texts(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The image files of all folders in `root`, hidden ones aside, folder by folder. */
static int list_files(cli_inputs *out, const char *root, const char *state) {
    memset(&walk, 0, sizeof walk);
    walk.has_state = stat(state, &walk.state) == 0;
    /* links are followed, and no folder is visited twice */
    bool good = nftw(root, visit, 32, FTW_ACTIONRETVAL) == 0;
    int code = walk.unreadable ? CLI_INPUT : walk.failed ? cli_fail_memory() : CLI_DONE;
    if (!code && !good)
        code = cli_fail(CLI_INPUT, "%s: cannot be read (%s)", root, strerror(errno));
    if (!code && walk.count > INT32_MAX)
        code = cli_fail(CLI_INPUT, "%s: too many folders", root);
    if (!code) {
        qsort(walk.paths, walk.count, sizeof *walk.paths, compare_texts);
        code = cli_inputs_list(out, (const char *const *)walk.paths, (int)walk.count);
    }
    for (size_t i = 0; i < walk.count; i++)
        free(walk.paths[i]);
    free(walk.paths);
    return code;
}

/* ---------------------------------------------------------------- split ---------------------- */

typedef struct ranked {
    uint64_t key;
    int64_t input;
} ranked;

static int compare_ranks(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return a->input < b->input ? -1 : a->input > b->input;
}

/* Every bit of the hash in every bit of the key (the finaliser of SplitMix64). */
static uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* How many of n images are held out. */
static int64_t held_count(const train *t, int64_t n) {
    const cli_values *v = t->values;
    double share = isnan(v->validation) ? 0.05 : v->validation;
    if (v->validate_every == 0 || !(share > 0.0) || n < 2)
        return 0;
    int64_t count = (int64_t)(share * (double)n + 0.5), most = n / 2, least = n / 8;
    if (least > TRAIN_PICTURES)
        least = TRAIN_PICTURES;
    if (least < 2) /* so that one's map can stand in for the other's */
        least = 2;
    if (count < least)
        count = least;
    if (count > most)
        count = most;
    return count < TRAIN_MOST_HELD ? count : TRAIN_MOST_HELD;
}

/* Those with the smallest hashes of seed and path are held out: what is in the folder besides
 * hardly matters, nor does where it lies. */
static int split(train *t, const char *const *files, int64_t count, size_t root) {
    train_data *d = &t->data;
    const uint64_t seed = t->options.seed;
    ranked *ranks = calloc((size_t)count + 1, sizeof *ranks);
    bool *is_held = calloc((size_t)count + 1, sizeof *is_held);
    d->trained = calloc((size_t)count + 1, sizeof *d->trained);
    d->held = calloc((size_t)count + 1, sizeof *d->held);
    int code = ranks && is_held && d->trained && d->held ? CLI_DONE : cli_fail_memory();
    if (!code) {
        const int64_t held = held_count(t, count);
        cli_hash_start(&d->hash);
        cli_hash_add(&d->hash, &held, sizeof held);
        for (int64_t i = 0; i < count; i++) {
            const char *name = files[i] + root; /* relative, with or without a slash */
            uint64_t hash;
            name += strspn(name, "/");
            cli_hash_start(&hash);
            cli_hash_add(&hash, name, strlen(name));
            ranks[i] = (ranked){mixed(hash ^ mixed(seed + 1)), i};
            cli_hash_add(&d->hash, name, strlen(name) + 1);
        }
        qsort(ranks, (size_t)count, sizeof *ranks, compare_ranks);
        for (int64_t i = 0; i < held; i++)
            is_held[ranks[i].input] = true;
        for (int64_t i = 0; i < count; i++) {
            if (is_held[i])
                d->held[d->held_count++] = files[i];
            else
                d->trained[d->trained_count++] = files[i];
        }
    }
    free(ranks);
    free(is_held);
    return code;
}

int train_data_list(train *t) {
    const char *folder = t->values->data;
    train_data *d = &t->data;
    struct stat info;
    if (stat(folder, &info) != 0)
        return cli_fail(CLI_INPUT, "%s: no such folder", folder);
    if (!S_ISDIR(info.st_mode))
        return cli_fail(CLI_INPUT, "%s: is no folder", folder);
    int code = list_files(&d->inputs, folder, t->state);
    if (code)
        return code;
    int64_t count = 0;
    size_t root = strlen(folder);
    while (root > 0 && folder[root - 1] == '/')
        root--;
    const char **files = calloc((size_t)d->inputs.count + 1, sizeof *files);
    if (!files)
        return cli_fail_memory();
    for (int64_t i = 0; i < d->inputs.count; i++) /* the others are folders without images */
        if (!d->inputs.items[i].error)
            files[count++] = d->inputs.items[i].path;
    if (count == 0)
        code = cli_fail(CLI_INPUT, "%s: no image files in this folder or those in it", folder);
    else if (count == 1 && t->values->validate_every != 0)
        code = cli_fail(CLI_USAGE,
                        "%s: holds one image, so none can be held out for validation; "
                        "--validate-every 0 trains without",
                        folder);
    if (!code)
        code = split(t, files, count, root);
    free(files);
    return code;
}

/* ---------------------------------------------------------------- batches -------------------- */

static featinv_dataset_options dataset_options(const train *t) {
    const cli_values *v = t->values;
    featinv_dataset_options o;
    (void)featinv_dataset_options_init(&o, sizeof o, t->opened.model);
    o.batch = (int32_t)t->share;
    o.augment = !v->no_augment;
    o.legacy_target = v->legacy;
    o.threads = v->workers;
    o.seed = t->options.seed;
    o.max_pixels = v->max_pixels;
    return o;
}

int train_data_open(train *t) {
    train_data *d = &t->data;
    const featinv_model_details *info = &t->opened.info;
    const featinv_dataset_options o = dataset_options(t);
    d->image[0] = o.image_height;
    d->image[1] = o.image_width;
    d->view[0] = o.view_height;
    d->view[1] = o.view_width;
    d->latent_size = (size_t)info->latent[0] * (size_t)info->latent[1] * (size_t)info->latent[2];
    d->map_size = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
    d->order_epoch = -1;
    if (t->values->cache)
        return train_cache_fill(t);
    const size_t n = (size_t)t->share;
    d->images = calloc(n, (size_t)d->image[0] * (size_t)d->image[1] * 3);
    d->views = calloc(n, (size_t)d->view[0] * (size_t)d->view[1] * 3);
    if (!d->images || !d->views)
        return cli_fail_memory();
    featinv_status status = featinv_dataset_create(&d->dataset, d->trained, d->trained_count, &o);
    return status ? cli_fail_status(status, t->values->data) : CLI_DONE;
}

static int report_problems(train *t) {
    int code = CLI_DONE;
    const featinv_dataset *dataset = t->data.dataset;
    for (; !code && t->data.reported < featinv_dataset_problems(dataset); t->data.reported++)
        code = train_problem(t, featinv_dataset_problem(NULL, dataset, t->data.reported));
    return code;
}

int train_data_batch(train_batch *out, train *t, int64_t step) {
    train_data *d = &t->data;
    if (d->cached)
        return train_cache_batch(out, t, step);
    *out = (train_batch){
        .shapes = {{t->share, d->image[0], d->image[1], 3}, {t->share, d->view[0], d->view[1], 3}}};
    out->tensors[0] = featinv_tensor_view(d->images, FEATINV_DTYPE_U8, 4, out->shapes[0]);
    out->tensors[1] = featinv_tensor_view(d->views, FEATINV_DTYPE_U8, 4, out->shapes[1]);
    out->batch = (featinv_trainer_batch){.struct_size = sizeof out->batch,
                                         .count = t->share,
                                         .position = t->rank * t->share,
                                         .images = &out->tensors[0],
                                         .views = &out->tensors[1]};
    featinv_status status = featinv_dataset_batch(&out->tensors[0], &out->tensors[1], NULL,
                                                  d->dataset, step * t->size + t->rank);
    return status ? cli_fail_status(status, NULL) : report_problems(t);
}

void train_data_free(train_data *d) {
    featinv_dataset_destroy(d->dataset);
    cli_inputs_free(&d->inputs);
    free(d->trained);
    free(d->held);
    free(d->images);
    free(d->views);
    free(d->means);
    free(d->logvars);
    free(d->maps);
    free(d->order);
    free(d->batch_latents);
    free(d->batch_maps);
    free(d->keys);
    *d = (train_data){0};
}
