#include "side.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_map_file(const char *path) {
    size_t length = strlen(path);
    return length > 4 && (strcasecmp(path + length - 4, ".npy") == 0 ||
                          strcasecmp(path + length - 4, ".npz") == 0);
}

static int read_map(cli_side *side, const cli_opened *opened, const char *verb) {
    const featinv_model_details *info = &opened->info;
    const int64_t wanted[4] = {-1, info->channels, info->height, info->width};
    cli_array array = {0};
    int code = cli_maps_read(&array, side->path);
    if (!code)
        code = cli_array_check(&array, side->path, wanted, 4, "by the bundle:");
    if (!code && array.info.shape[0] != 1)
        code = cli_fail(CLI_INPUT, "%s: holds %lld maps, %s takes one", side->path,
                        (long long)array.info.shape[0], verb);
    if (!code) {
        side->map = array.data;
        array.data = NULL;
    }
    cli_array_free(&array);
    return code;
}

static int read_image(cli_side *side, const cli_opened *opened, const cli_values *values,
                      const char *verb) {
    cli_maps maps;
    int code = cli_maps_extract(&maps, opened, values, &side->path, 1);
    if (!code && maps.inputs.count != 1)
        code = cli_fail(CLI_USAGE, "%s: is a folder of %lld images, %s takes one", side->path,
                        (long long)maps.inputs.count, verb);
    if (!code) {
        side->map = maps.maps;
        side->picture = maps.pictures;
        side->width = maps.sizes[0][0];
        side->height = maps.sizes[0][1];
        maps.maps = NULL;
        maps.pictures = NULL;
    }
    cli_maps_free(&maps);
    return code;
}

int cli_sides_read(cli_side sides[2], const cli_opened *opened, const cli_values *values,
                   const char *verb) {
    int code = CLI_DONE;
    for (int i = 0; !code && i < 2; i++) {
        const char *path = values->arguments[i], *slash = strrchr(path, '/');
        sides[i] = (cli_side){.path = path, .name = slash && slash[1] ? slash + 1 : path};
        code = is_map_file(sides[i].path) ? read_map(&sides[i], opened, verb)
                                          : read_image(&sides[i], opened, values, verb);
    }
    return code;
}

void cli_sides_free(cli_side sides[2]) {
    for (int i = 0; i < 2; i++) {
        free(sides[i].map);
        free(sides[i].picture);
        sides[i] = (cli_side){0};
    }
}

featinv_tensor cli_side_view(const cli_side *side, const cli_opened *opened, int64_t shape[4]) {
    const featinv_model_details *info = &opened->info;
    shape[0] = 1;
    shape[1] = info->channels;
    shape[2] = info->height;
    shape[3] = info->width;
    return featinv_tensor_view(side->map, FEATINV_DTYPE_F32, 4, shape);
}

double cli_map_cosine(float *a, float *b, const int64_t map[3]) {
    int64_t shape[4] = {1, map[0], map[1], map[2]};
    featinv_tensor left = featinv_tensor_view(a, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor right = featinv_tensor_view(b, FEATINV_DTYPE_F32, 4, shape);
    featinv_cosine_result result = {.struct_size = sizeof result};
    return featinv_cosine(&result, NULL, NULL, &left, &right, NULL) ? NAN : result.median_then_mean;
}
