/* Concepts found, turned down and seen: concepts OUT.png CLASS CONCEPT PHOTO...
 *
 *     cc concepts.c $(pkg-config --cflags --libs featinv) -o concepts
 *
 * Fits five concepts to 20 and more photos of a class (its number, as in `featinv info --json`),
 * turns one of 0 to 4 down in the first one's features, and paints over where the picture changes.
 */
#include <featinv.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAPS, LESS, LOGITS, LOWER, HEAT, TENSORS };
static int read_photo(featinv_image *p, const char *path) { /* the size, then the pixels */
    if (featinv_image_read(NULL, 0, &p->width, &p->height, path, 0))
        return 1;
    size_t bytes = (size_t)p->width * (size_t)p->height * 3;
    p->pixels = malloc(bytes); /* without memory NULL, which later calls refuse */
    return featinv_image_read((uint8_t *)p->pixels, bytes, &p->width, &p->height, path, 0);
}

static featinv_tensor fresh(int32_t ndim, int64_t s[4]) { /* calls refuse a view of NULL */
    void *zeros = calloc((size_t)(s[0] * s[1] * s[2] * s[3]), sizeof(float));
    return featinv_tensor_view(zeros, FEATINV_DTYPE_F32, ndim, s);
}

int main(int argc, char **argv) {
    int failed = 1, count = argc - 4;
    if (count < 1)
        return fprintf(stderr, "usage: %s OUT.png CLASS CONCEPT PHOTO...\n", argv[0]), 2;
    int32_t label = atoi(argv[2]), concept = atoi(argv[3]);
    featinv_model *model = NULL;
    featinv_session *session = NULL;
    featinv_concepts *concepts = NULL;
    featinv_model_details info = {.struct_size = sizeof info};
    featinv_fit_options fit;
    featinv_image *photos = calloc((size_t)count + 1, sizeof *photos);
    featinv_tensor t[TENSORS] = {{0}};
    double *weight = NULL, complete, rest;
    if (!photos || featinv_model_open(&model, NULL, NULL) || featinv_model_info(&info, model) ||
        featinv_session_create(&session, model, NULL) || featinv_fit_options_init(&fit, sizeof fit))
        goto done;
    for (int i = 0; i <= count; i++) /* the first one twice: once to paint on */
        if (read_photo(&photos[i], argv[4 + i % count]))
            goto done;
    int64_t all[4] = {count, info.channels, info.height, info.width};
    int64_t one[4] = {1, all[1], all[2], all[3]}, picture[4] = {1, 1, info.image[1], info.image[2]};
    int64_t row[4] = {1, info.classes, 1, 1};
    t[MAPS] = fresh(4, all), t[LESS] = fresh(4, one), t[HEAT] = fresh(4, picture);
    t[LOGITS] = fresh(2, row), t[LOWER] = fresh(2, row), fit.count = 5;
    weight = calloc((size_t)info.channels, sizeof *weight);
    featinv_tensor first = featinv_tensor_view(t[MAPS].data, FEATINV_DTYPE_F32, 4, one);
    featinv_tensor heat = featinv_tensor_view(t[HEAT].data, FEATINV_DTYPE_F32, 2, picture + 2);
    failed = featinv_class_weight(weight, session, label) ||
             featinv_extract(&t[MAPS], NULL, session, photos, count, NULL) ||
             featinv_classify(&t[LOGITS], session, &first, NULL) ||
             featinv_concepts_fit(&concepts, session, &t[MAPS], &fit) ||
             featinv_concepts_completeness(&complete, &rest, concepts, weight) ||
             featinv_concepts_attenuate(&t[LESS], concepts, &first, concept, 0.25, NULL) ||
             featinv_classify(&t[LOWER], session, &t[LESS], NULL) ||
             featinv_visualize(&t[HEAT], NULL, session, concepts, &concept, 1, &first, NULL) ||
             featinv_image_overlay((uint8_t *)photos[count].pixels, photos, &heat, 0.8, 0.33) ||
             featinv_image_write(argv[1], &photos[count]);
    if (!failed)
        printf("%s: completeness %.2f, logit %.2f, with less of it %.2f\n",
               featinv_model_class_name(model, label), complete, ((float *)t[LOGITS].data)[label],
               ((float *)t[LOWER].data)[label]);
done:
    if (failed)
        fprintf(stderr, "concepts: %s\n", *featinv_last_error() ? featinv_last_error() : "memory");
    for (int i = 0; photos && i <= count; i++)
        free((void *)photos[i].pixels);
    for (int i = 0; i < TENSORS; i++)
        free(t[i].data);
    free(photos);
    free(weight);
    featinv_concepts_release(concepts);
    featinv_session_destroy(session);
    featinv_model_release(model);
    return failed;
}
