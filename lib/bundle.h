/* A bundle's manifest, parsed and checked, and its list of files (docs/bundle.md). */
#ifndef FI_BUNDLE_H
#define FI_BUNDLE_H

#include "featinv.h"
#include "hash.h"
#include "schedule.h"

#include <stdbool.h>

typedef struct fi_bundle_file {
    char *name; /* relative, as the manifest lists it */
    char sha256[FI_HASH_TEXT];
    uint64_t bytes;
} fi_bundle_file;

typedef struct fi_bundle {
    char *path;     /* the folder, resolved */
    char *manifest; /* text of manifest.json */
    char sha256[FI_HASH_TEXT];
    fi_bundle_file *files;
    int64_t file_count;

    char *name, *base_path, *base_sha256; /* base_*: NULL without one */

    bool has_backbone, has_features, has_diffusion;
    char *backbone_name, *head, *layer, *layout;
    int32_t input_height, input_width;
    double mean[3], std[3], crop;
    featinv_filter interpolation;

    int32_t map[3]; /* C, H, W */
    int32_t pooled, prefix_tokens;

    char *prediction;
    int32_t timesteps;
    double beta_start, beta_end, latent_scale;
    fi_beta_schedule beta_schedule;
    int32_t latent[3], image[3];

    int32_t steps; /* defaults */
    double scale, hint_scale;
    uint64_t seed;
    char *context, *uncontext;
} fi_bundle;

/* Parses DIR/manifest.json, checks every key, that exactly the listed files are there with their
 * sizes, and the hash of every file but the weights. Errors: NOT_FOUND, BUNDLE, HASH, VERSION. */
featinv_status fi_bundle_open(fi_bundle **out, const char *path);
void fi_bundle_close(fi_bundle *bundle);

/* The listed file of that name, or NULL. */
const fi_bundle_file *fi_bundle_find(const fi_bundle *bundle, const char *name);
/* "DIR/name" in fresh memory, NULL when out of memory. */
char *fi_bundle_file_path(const fi_bundle *bundle, const char *name);
/* Reads a listed file whole and checks its hash on the bytes that are returned. */
featinv_status fi_bundle_read(uint8_t **bytes, size_t *size, const fi_bundle *bundle,
                              const char *name);

#endif
