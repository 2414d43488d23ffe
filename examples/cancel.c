/* Sampling in one thread, cancelled from another: cancel MAP.npz OUT.png
 *
 *     cc -std=c11 cancel.c $(pkg-config --cflags --libs featinv) -pthread -o cancel
 *
 * Begins 999 steps over a map, cancels them after 20, and draws it in 5 with the same session.
 * MAP.npz is what extract wrote of one picture. */
#include <featinv.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <threads.h>

enum { ENDED = 1 << 30 };

typedef struct drawing {
    featinv_model *model;
    featinv_session *session;
    featinv_tensor map, image;
    int32_t steps;
    atomic_llong done; /* units so far; ENDED after the call */
} drawing;

static int32_t show(void *user_data, int64_t done, int64_t total) {
    atomic_store(&((drawing *)user_data)->done, done);
    fprintf(stderr, "\r%lld of %lld", (long long)done, (long long)total);
    return 0;
}

static int draw(void *argument) {
    drawing *d = argument;
    featinv_sample_options options;
    featinv_sample_options_init(&options, sizeof options, d->model);
    options.steps = d->steps;
    options.progress = show;
    options.user_data = d;
    featinv_status status = featinv_sample(&d->image, NULL, d->session, &d->map, &options);
    /* an error text belongs to the thread that failed */
    printf("\n%s\n", status ? featinv_last_error() : "drawn");
    atomic_store(&d->done, ENDED);
    return status;
}

int main(int argc, char **argv) {
    drawing d = {.steps = 999};
    featinv_model_details info = {.struct_size = sizeof info};
    featinv_array_info file = {.struct_size = sizeof file};
    int cancelled = 0, failed = 1;
    thrd_t thread;
    if (argc != 3 || featinv_model_open(&d.model, NULL, NULL) ||
        featinv_model_info(&info, d.model) || featinv_session_create(&d.session, d.model, NULL))
        goto done;
    size_t bytes = sizeof(float) * (size_t)(info.channels * info.height * info.width);
    int64_t size[4] = {1, info.image[1], info.image[2], 3};
    d.map = featinv_tensor_view(malloc(bytes), FEATINV_DTYPE_F32, 4, file.shape);
    d.image =
        featinv_tensor_view(malloc((size_t)(size[1] * size[2] * 3)), FEATINV_DTYPE_U8, 4, size);
    if (!d.map.data || !d.image.data ||
        featinv_array_read(d.map.data, bytes, &file, argv[1], NULL, FEATINV_DTYPE_F32))
        goto done;
    if (thrd_create(&thread, draw, &d) != thrd_success)
        goto done;
    while (atomic_load(&d.done) < 20)
        thrd_sleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    featinv_session_cancel(d.session);
    thrd_join(thread, &cancelled);
    d.steps = 5; /* the session stays usable */
    featinv_image picture = {d.image.data, info.image[2], info.image[1], 0};
    failed =
        cancelled != FEATINV_ERROR_CANCELLED || draw(&d) || featinv_image_write(argv[2], &picture);
done:
    if (failed)
        fprintf(stderr, "cancel MAP.npz OUT.png: %s\n", featinv_last_error());
    free(d.map.data);
    free(d.image.data);
    featinv_session_destroy(d.session);
    featinv_model_release(d.model);
    return failed;
}
