/* Arrays of a recorded .npz file. */
#ifndef RECORDED_H
#define RECORDED_H

#include "check.h"

/* A fresh array of mcd/<file>.npz; shape (8 values) may be NULL. A missing array fails the test. */
static void *recorded(const char *file, const char *member, featinv_dtype dtype, int64_t *shape) {
    char path[1024];
    const char *folder = getenv("FEATINV_REFERENCE");
    (void)snprintf(path, sizeof path, "%s/mcd/%s.npz", folder ? folder : "tests/data", file);
    featinv_array_info info = {.struct_size = sizeof info};
    CHECK_OK(featinv_array_read(NULL, 0, &info, path, member, dtype));
    size_t bytes = 8;
    for (int32_t i = 0; i < info.ndim; i++)
        bytes *= (size_t)info.shape[i];
    void *data = malloc(bytes + 8);
    assert_non_null(data);
    CHECK_OK(featinv_array_read(data, bytes + 8, &info, path, member, dtype));
    if (shape)
        memcpy(shape, info.shape, sizeof info.shape);
    return data;
}

#endif
