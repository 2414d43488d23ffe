/* Feature maps and logits of pictures into one file: extract OUT.npz PHOTO... (python: numpy.load)
 *
 *     cc extract.c $(pkg-config --cflags --libs featinv) -o extract
 *
 * Shows a batch of pictures of any sizes, outputs in the caller's memory, and writing of arrays. */
#include <featinv.h>

#include <stdio.h>
#include <stdlib.h>

/* First the size, then the pixels; nonzero where that fails. */
static int read_photo(featinv_image *photo, const char *path) {
    if (featinv_image_read(NULL, 0, &photo->width, &photo->height, path, 0))
        return 1;
    size_t bytes = (size_t)photo->width * (size_t)photo->height * 3;
    uint8_t *pixels = malloc(bytes);
    photo->pixels = pixels;
    return !pixels || featinv_image_read(pixels, bytes, &photo->width, &photo->height, path, 0);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return fprintf(stderr, "usage: %s OUT.npz PHOTO...\n", argv[0]), 2;
    int failed = 1, count = argc - 2;
    featinv_model *model = NULL;
    featinv_session *session = NULL;
    float *maps = NULL, *logits = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    featinv_image *photos = calloc((size_t)count, sizeof *photos);
    if (!photos || featinv_model_open(&model, NULL, NULL) || featinv_model_info(&info, model) ||
        featinv_session_create(&session, model, NULL))
        goto done;
    for (int i = 0; i < count; i++)
        if (read_photo(&photos[i], argv[2 + i]))
            goto done;
    int64_t shape[4] = {count, info.channels, info.height, info.width};
    int64_t rows[2] = {count, info.classes};
    maps = calloc((size_t)count, sizeof(float) * (size_t)(shape[1] * shape[2] * shape[3]));
    logits = calloc((size_t)count, sizeof(float) * (size_t)info.classes);
    if (!maps || !logits)
        goto done;
    featinv_tensor arrays[2] = {featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, shape),
                                featinv_tensor_view(logits, FEATINV_DTYPE_F32, 2, rows)};
    const featinv_tensor *head = info.classes ? &arrays[1] : NULL; /* some bundles have none */
    failed = featinv_extract(&arrays[0], head, session, photos, count, NULL) ||
             featinv_array_write(argv[1], arrays, (const char *[]){"features", "logits"},
                                 head ? 2 : 1, 0);
done:
    if (failed) /* no text: memory that this program asked for */
        fprintf(stderr, "extract: %s\n", *featinv_last_error() ? featinv_last_error() : "memory");
    for (int i = 0; photos && i < count; i++)
        free((void *)photos[i].pixels);
    free(photos);
    free(maps);
    free(logits);
    featinv_session_destroy(session);
    featinv_model_release(model);
    return failed;
}
