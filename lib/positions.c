#include "positions.h"

#include "error.h"
#include "tensor.h"

#include <stdlib.h>
#include <string.h>

featinv_status fi_maps_open(fi_maps *maps, const featinv_tensor *tensor, int64_t channels) {
    const int64_t shape[4] = {-1, channels, -1, -1};
    const void *data = NULL;
    *maps = (fi_maps){0};
    if (tensor && tensor->ndim == 4 && tensor->shape && tensor->shape[1] != channels)
        return fi_fail(FEATINV_ERROR_SHAPE, "maps: %lld channels, the concepts have %lld",
                       (long long)tensor->shape[1], (long long)channels);
    featinv_status status =
        fi_tensor_input(&data, &maps->owned, tensor, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (status)
        return status;
    maps->data = data;
    maps->images = tensor->shape[0];
    maps->channels = channels;
    maps->height = tensor->shape[2];
    maps->width = tensor->shape[3];
    maps->each = maps->height * maps->width;
    maps->count = maps->images * maps->each;
    status = fi_check_finite(maps->data, (size_t)(maps->count * channels), "maps");
    if (status)
        fi_maps_close(maps);
    return status;
}

void fi_maps_close(fi_maps *maps) {
    free(maps->owned);
    *maps = (fi_maps){0};
}

/* The longest run of the block from column `done` that lies in one image: where it begins in a
 * channel of the maps, and its length. */
static int64_t run_of(int64_t *offset, int64_t rows, int64_t each, int64_t position, int64_t left) {
    int64_t image = position / each, within = position % each;
    *offset = image * rows * each + within;
    return left < each - within ? left : each - within;
}

void fi_positions_gather(double *block, const float *maps, int64_t rows, int64_t each,
                         int64_t first, int64_t n) {
    if (n < FI_POSITIONS)
        memset(block, 0, (size_t)rows * FI_POSITIONS * sizeof *block);
    for (int64_t done = 0, offset, run; done < n; done += run) {
        run = run_of(&offset, rows, each, first + done, n - done);
        for (int64_t r = 0; r < rows; r++) {
            const float *in = maps + offset + r * each;
            double *out = block + r * FI_POSITIONS + done;
            for (int64_t i = 0; i < run; i++)
                out[i] = (double)in[i];
        }
    }
}

void fi_positions_scatter(float *maps, const double *block, int64_t rows, int64_t each,
                          int64_t first, int64_t n) {
    for (int64_t done = 0, offset, run; done < n; done += run) {
        run = run_of(&offset, rows, each, first + done, n - done);
        for (int64_t r = 0; r < rows; r++) {
            const double *in = block + r * FI_POSITIONS + done;
            float *out = maps + offset + r * each;
            for (int64_t i = 0; i < run; i++)
                out[i] = (float)in[i];
        }
    }
}
