/* A picture to its feature map and back: reconstruct PHOTO OUT.png [BUNDLE]
 *
 *     cc reconstruct.c $(pkg-config --cflags --libs featinv) -o reconstruct
 *
 * Shows the whole life of a model and a session, the size-then-data pattern of image reading,
 * progress, and how a score is read. */
#include <featinv.h>

#include <stdio.h>
#include <stdlib.h>

static int32_t show(void *user_data, int64_t done, int64_t total) {
    (void)user_data;
    fprintf(stderr, "\r%3lld %%", (long long)(100 * done / total));
    return 0; /* anything else cancels */
}

int main(int argc, char **argv) {
    featinv_model *model = NULL;
    featinv_session *session = NULL;
    uint8_t *pixels = NULL, *drawn = NULL;
    int32_t width, height, failed = 1;
    if (argc < 3) {
        fprintf(stderr, "usage: %s PHOTO OUT.png [BUNDLE]\n", argv[0]);
        return 2;
    }
    /* NULL opens the default bundle; a session on "auto" takes a GPU where there is one */
    if (featinv_model_open(&model, argc > 3 ? argv[3] : NULL, NULL) ||
        featinv_session_create(&session, model, NULL))
        goto done;

    /* first the size, then the pixels */
    if (featinv_image_read(NULL, 0, &width, &height, argv[1], 0))
        goto done;
    size_t bytes = (size_t)width * (size_t)height * 3;
    pixels = malloc(bytes);
    if (!pixels || featinv_image_read(pixels, bytes, &width, &height, argv[1], 0))
        goto done;

    featinv_model_details info = {.struct_size = sizeof info};
    if (featinv_model_info(&info, model))
        goto done;
    int64_t shape[4] = {1, info.image[1], info.image[2], 3};
    drawn = malloc((size_t)shape[1] * (size_t)shape[2] * 3);
    if (!drawn)
        goto done;

    featinv_sample_options sampling;
    featinv_reconstruct_options options;
    featinv_sample_options_init(&sampling, sizeof sampling, model);
    featinv_reconstruct_options_init(&options, sizeof options, model);
    sampling.steps = 10;
    sampling.progress = show;
    options.sampling = &sampling;

    featinv_tensor out = featinv_tensor_view(drawn, FEATINV_DTYPE_U8, 4, shape);
    featinv_image photo = {pixels, width, height, 0};
    featinv_score score;
    if (featinv_reconstruct(&out, &score, session, &photo, 1, &options))
        goto done;
    featinv_image picture = {drawn, info.image[2], info.image[1], 0};
    if (featinv_image_write(argv[2], &picture))
        goto done;
    const char *before = featinv_model_class_name(model, (int32_t)score.top1_original);
    const char *after = featinv_model_class_name(model, (int32_t)score.top1_sample);
    printf("cosine %.3f, centred %.3f, %s -> %s\n", score.cosine_median, score.cosine_centred,
           before ? before : "?", after ? after : "?");
    failed = 0;
done:
    if (failed)
        fprintf(stderr, "%s: %s\n", argv[0], featinv_last_error());
    free(drawn);
    free(pixels);
    featinv_session_destroy(session);
    featinv_model_release(model);
    return failed;
}
