/* Floors: how well other originals agree, which no picture should fall below. */
#include "evaluate.h"

#include <stdlib.h>
#include <string.h>

/* Maps and logits of one image for each item. */
typedef struct seen {
    float *maps, *logits;
    bool *known;
} seen;

static void seen_free(seen *s) {
    free(s->maps);
    free(s->logits);
    free(s->known);
}

/* which[i] -1: none. */
static int look(seen *out, evaluate *e, const evaluate_network *network, evaluate_block *block,
                const int64_t *which) {
    const size_t n = (size_t)block->count, classes = (size_t)network->classes;
    const size_t size = (size_t)(network->channels * network->positions);
    int64_t *asked = calloc(n, sizeof *asked), *items = calloc(n, sizeof *items);
    featinv_image *images = calloc(n, sizeof *images);
    evaluate_photos photos = {0};
    int64_t count = 0, good = 0;
    *out = (seen){malloc(n * size * sizeof *out->maps),
                  malloc(n * classes * sizeof *out->logits + 1), calloc(n, sizeof *out->known)};
    int code = asked && items && images && out->maps && out->logits && out->known
                   ? CLI_DONE
                   : cli_fail_memory();
    for (size_t i = 0; !code && i < n; i++)
        if (which[i] >= 0) {
            items[count] = (int64_t)i;
            asked[count++] = which[i];
        }
    if (!code && count)
        code = evaluate_photos_read(&photos, e, block, &e->set, asked, count);
    for (int64_t i = 0; !code && i < count; i++)
        if (photos.images[i].pixels) {
            items[good] = items[i];
            images[good++] = photos.images[i];
        }
    if (!code && good)
        code = evaluate_extract(out->maps, out->logits, network, images, good);
    for (int64_t i = good - 1; !code && i >= 0; i--) { /* to their places, the last one first */
        size_t to = (size_t)items[i], from = (size_t)i;
        memmove(out->maps + to * size, out->maps + from * size, size * sizeof *out->maps);
        memmove(out->logits + to * classes, out->logits + from * classes,
                classes * sizeof *out->logits);
        out->known[to] = true;
    }
    evaluate_photos_free(&photos);
    free(asked);
    free(items);
    free(images);
    return code;
}

static int compare(evaluate_block *block, const evaluate_task *task, int32_t slot,
                   const evaluate_network *network, const seen *a, const seen *b) {
    const int64_t size = network->channels * network->positions, classes = network->classes;
    int code = CLI_DONE;
    for (int64_t i = 0; !code && i < block->count; i++) {
        double matches[2];
        if (!a->known[i] || !b->known[i])
            continue;
        evaluate_matches(matches, a->logits + i * classes, b->logits + i * classes, classes);
        code = evaluate_compare(block, &task->slots[slot], slot, i, network, a->maps + i * size,
                                b->maps + i * size, matches);
    }
    return code;
}

int evaluate_work_floor(evaluate *e, const evaluate_task *task, evaluate_block *block,
                        int64_t first) {
    const evaluate_network *network = &e->networks[task->model];
    const evaluate_set *set = &e->set;
    const int64_t size = network->channels * network->positions;
    seen originals = {0}, others[2] = {{0}, {0}};
    int64_t *which = calloc((size_t)block->count, 3 * sizeof *which);
    int code = which ? CLI_DONE : cli_fail_memory();
    for (int64_t i = 0; !code && i < block->count; i++) {
        which[i] = first + i;
        /* the images are in a random order, so the next one is any other */
        which[block->count + i] = set->count > 1 ? (first + i + 1) % set->count : -1;
        which[2 * block->count + i] = set->same[first + i];
    }
    if (!code)
        code = look(&originals, e, network, block, which);
    for (int64_t i = 0; !code && i < block->count; i++)
        if (originals.known[i])
            evaluate_pool(block->rows[0] + i * network->channels, originals.maps + i * size,
                          network->channels, network->positions);
    for (int32_t s = 0; !code && s < 2; s++) {
        code = look(&others[s], e, network, block, which + (s + 1) * block->count);
        if (!code)
            code = compare(block, task, s, network, &originals, &others[s]);
    }
    seen_free(&originals);
    seen_free(&others[0]);
    seen_free(&others[1]);
    free(which);
    return code;
}
