/* Feature maps that a verb works on: of images, or of a file. */
#ifndef CLI_MAPS_H
#define CLI_MAPS_H

#include "arrays.h"
#include "inputs.h"

#include <jansson.h>

typedef struct cli_maps {
    float *maps;       /* (count, C, H, W) */
    float *logits;     /* (count, classes), NULL: unknown */
    uint8_t *pictures; /* (count, height, width, 3): what the backbone sees of each image */
    int64_t count, classes;
    int64_t map[3];        /* C, H, W */
    int32_t height, width; /* of a picture */
    cli_inputs inputs;     /* the images */
    int64_t *whose;        /* (count): input of each map */
    int32_t (*sizes)[2];   /* (count): width, height of each image */
    json_t *errors;        /* of images that could not be read: {"input", "error"} */
    int code;              /* 0, or that of those images */
} cli_maps;

/* What the backbone sees of an image of width by height, in its pixels: the first two are where
 * that begins, across and down, the others its extent. */
void cli_seen(double seen[4], const featinv_model_details *info, int32_t width, int32_t height);

/* Maps, logits and pictures of images and folders of them. Errors are printed; those of single
 * images are left in `code`. Without any map it fails. */
int cli_maps_extract(cli_maps *out, const cli_opened *opened, const cli_values *values,
                     const char *const *arguments, int count);
void cli_maps_free(cli_maps *maps);

/* Map i, and its class by the logits, -1 where unknown. */
float *cli_map_at(const cli_maps *maps, int64_t i);
int64_t cli_map_size(const cli_maps *maps);
uint8_t *cli_picture_at(const cli_maps *maps, int64_t i);
int64_t cli_largest(const float *logits, int64_t classes);
int32_t cli_class_of(const cli_maps *maps, int64_t i);
/* Index of a class of the bundle, -1 where it has none of that name. */
int32_t cli_find_class(const featinv_model *model, const char *name);

/* A map file (N, C, H, W), every value finite. */
int cli_maps_read(cli_array *out, const char *path);

/* Concepts of --concepts, a file or the name of a set in the bundle, and that they have that many
 * channels (-1: any). model NULL: --model, else the default bundle, is opened to look a name up. */
int cli_concepts_open(featinv_concepts **out, featinv_concepts_details *info,
                      const cli_values *values, const featinv_model *model, int64_t channels);
/* Errors of calls that work on maps with concepts: overlapping ones are the file's fault. */
int cli_fail_concepts(featinv_status status, const char *path);
/* Checks --concept against the number of concepts; CLI_CONCEPT_ALL passes. */
int cli_check_concept(const cli_values *values, const featinv_concepts_details *info);
/* "concept 3", "complement" */
const char *cli_concept_name(char text[32], int32_t concept_index);
/* Dimension of a concept or of the complement. */
int32_t cli_concept_dimension(const featinv_concepts_details *info, int32_t concept_index);

/* Percentiles of maps beside the bundle's training maps: norms and residuals, count each; NaN where
 * the bundle cannot say. */
int cli_scope(double *norms, double *residuals, const featinv_model *model, float *maps,
              int64_t count, const int64_t map[3]);

#endif
