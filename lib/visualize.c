/* FeatInv-Viz (paper, algorithm 1), and the same for random subspaces of equal energy. */
#include "concepts.h"
#include "difference.h"
#include "error.h"
#include "metrics.h"
#include "null.h"
#include "options.h"
#include "sample.h"
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double null_percentile = 95.0;
static const int64_t memory_limit = (int64_t)1 << 30; /* of a block of more than one map */

featinv_status featinv_visualize_options_init(featinv_visualize_options *options, size_t size,
                                              const featinv_model *model) {
    (void)model; /* the sampling options carry the bundle's defaults */
    featinv_visualize_options all = {.struct_size = sizeof all,
                                     .pairs = 5,
                                     .factor = 0.25,
                                     .threshold = 0.33,
                                     .normalization = FEATINV_NORMALIZE_MAX};
    return fi_options_init(options, size, &all, sizeof all);
}

/* A call. Every map has `variants` to draw: itself, then for each concept the attenuated map and
 * its null draws. The variants of `block` maps go through the sampler together. */
typedef struct viz {
    featinv_session *session;
    const featinv_concepts *concepts;
    const int32_t *indices;
    featinv_visualize_options options;
    featinv_sample_options sampling;
    fi_net *net;
    fi_progress progress;
    int64_t *completed; /* the caller's count of maps, or NULL */

    int64_t maps, count, pairs, draws, variants, block;
    size_t map_size, pixels,
        latent_size;            /* values of a map, pixels of a picture, values of a latent */
    const float *input, *noise; /* noise: (maps * pairs) latents, NULL: not one for each */
    float *map, *null_map, *altered_maps;
    uint8_t *mask, *originals, *altered;
    void *owned[2];

    fi_null null;
    float *drawn;      /* (block, variants, C, h, w) */
    float *packed;     /* those of them that differ from the original */
    int64_t *place;    /* (block, variants): where in `packed`, -1: not there */
    uint8_t *pictures; /* (block * variants, pairs, H, W, 3), in the order of `packed` */
    float *lane_noise; /* (block * variants * pairs) latents, or NULL */
    double *medians;   /* (2 + draws, H, W): of the concept, of its null, of each draw */
    double *work;      /* (largest of pairs, draws) */
} viz;

static size_t variant(const viz *v, int64_t map, int64_t concept, int64_t draw) {
    return (size_t)(map * v->variants + (concept < 0 ? 0 : 1 + concept * (1 + v->draws) + draw));
}

static float *map_of(const viz *v, size_t variant_index) {
    return v->drawn + variant_index * v->map_size;
}

static size_t dimension_of(const viz *v, int32_t concept_index) {
    const featinv_concepts_details *info = &v->concepts->info;
    return (size_t)(concept_index == FEATINV_COMPLEMENT
                        ? info->channels - info->total
                        : info->offsets[concept_index + 1] - info->offsets[concept_index]);
}

/* ---------------------------------------------------------------- maps to draw --------------- */

/* The attenuated maps of one concept, and its null's, of maps [first, first + count). */
static featinv_status add_concept(viz *v, int64_t first, int64_t count, int64_t concept) {
    const fi_bundle *b = v->session->model->bundle;
    const float *from = v->input + (size_t)first * v->map_size;
    int64_t shape[4] = {count, b->map[0], b->map[1], b->map[2]};
    size_t bytes = v->map_size * sizeof *v->drawn;
    int32_t index = v->indices[concept];
    featinv_tensor maps = featinv_tensor_view((void *)(uintptr_t)from, FEATINV_DTYPE_F32, 4, shape);
    featinv_tensor out = featinv_tensor_view(v->packed, FEATINV_DTYPE_F32, 4, shape);
    featinv_status status =
        featinv_concepts_attenuate(&out, v->concepts, &maps, index, v->options.factor, NULL);
    for (int64_t n = 0; !status && n < count; n++) {
        const float *changed = v->packed + (size_t)n * v->map_size;
        memcpy(map_of(v, variant(v, n, concept, 0)), changed, bytes);
        if (v->altered_maps)
            memcpy(v->altered_maps + (size_t)((first + n) * v->count + concept) * v->map_size,
                   changed, bytes);
    }
    for (int64_t d = 0; !status && d < v->draws; d++) {
        fi_null_draw(&v->null, dimension_of(v, index), v->options.null_seed, (uint32_t)d, index);
        for (int64_t n = 0; n < count; n++)
            fi_null_map(map_of(v, variant(v, n, concept, 1 + d)), &v->null,
                        map_of(v, variant(v, n, -1, 0)), map_of(v, variant(v, n, concept, 0)),
                        v->options.factor > 1.0);
    }
    return status;
}

static featinv_status make_variants(viz *v, int64_t first, int64_t count) {
    featinv_status status = FEATINV_OK;
    for (int64_t n = 0; n < count; n++)
        memcpy(map_of(v, variant(v, n, -1, 0)), v->input + (size_t)(first + n) * v->map_size,
               v->map_size * sizeof *v->drawn);
    for (int64_t c = 0; !status && c < v->count; c++)
        status = add_concept(v, first, count, c);
    return status;
}

/* Packs the maps to draw, and their noise. One that equals its original to the bit takes over its
 * pictures: a network's last bits change with the size of a batch, and no change must show none. */
static int64_t pack(viz *v, int64_t first, int64_t count) {
    int64_t used = 0;
    for (int64_t i = 0; i < count * v->variants; i++) {
        int64_t n = i / v->variants;
        const float *own = map_of(v, (size_t)i);
        bool same = i % v->variants &&
                    memcmp(own, map_of(v, variant(v, n, -1, 0)), v->map_size * sizeof *own) == 0;
        v->place[i] = same ? -1 : used;
        if (same)
            continue;
        memcpy(v->packed + (size_t)used * v->map_size, own, v->map_size * sizeof *own);
        size_t lanes = (size_t)v->pairs * v->latent_size;
        if (v->lane_noise)
            memcpy(v->lane_noise + (size_t)used * lanes, v->noise + (size_t)(first + n) * lanes,
                   lanes * sizeof *v->noise);
        used++;
    }
    return used;
}

/* whole: whether all pictures are there, which a cancelled run may have finished, too. */
static featinv_status draw_block(bool *whole, viz *v, int64_t first, int64_t count) {
    const fi_bundle *b = v->session->model->bundle;
    int64_t drawn = pack(v, first, count), spared = 0, lanes = 0;
    int64_t shape[4] = {drawn * v->pairs, b->latent[0], b->latent[1], b->latent[2]};
    featinv_tensor noise = featinv_tensor_view(v->lane_noise, FEATINV_DTYPE_F32, 4, shape);
    featinv_sample_options o = v->sampling;
    if (v->lane_noise)
        o.noise = &noise;
    o.completed = &lanes;
    featinv_status status =
        fi_sample_units(&spared, v->session->model, count * v->variants - drawn, &o);
    v->progress.done += spared;
    fi_sample_outputs outputs = {.images = v->pictures};
    if (!status)
        status = fi_sample_run(v->session, v->net, &outputs, v->packed, drawn, &o, &v->progress);
    *whole = lanes == drawn * v->pairs;
    return status;
}

/* ---------------------------------------------------------------- results -------------------- */

static const uint8_t *pictures_of(const viz *v, size_t variant_index) {
    size_t original = variant_index / (size_t)v->variants * (size_t)v->variants;
    int64_t at = v->place[variant_index];
    return v->pictures + (size_t)((at < 0 ? v->place[original] : at) * v->pairs) * v->pixels * 3;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Interpolated between the order statistics. Sorts the values. */
static double percentile(double *values, size_t count, double percent) {
    qsort(values, count, sizeof *values, by_value);
    double at = percent / 100.0 * (double)(count - 1);
    size_t i = (size_t)at, next = i + 1 < count ? i + 1 : i;
    return values[i] + (at - (double)i) * (values[next] - values[i]);
}

/* The null's map: at each pixel the median over the draws, in units of the concept's maximum.
 * Returns its 95th percentile over the pixels. out: (H, W) or NULL. */
static double finish_null(float *out, viz *v, int64_t n, int64_t concept, double maximum) {
    double *null = v->medians + v->pixels, *draws = null + v->pixels;
    const uint8_t *originals = pictures_of(v, variant(v, n, -1, 0));
    for (int64_t d = 0; d < v->draws; d++)
        (void)fi_difference_median(draws + (size_t)d * v->pixels, v->work, originals,
                                   pictures_of(v, variant(v, n, concept, 1 + d)), (size_t)v->pairs,
                                   v->pixels);
    for (size_t i = 0; i < v->pixels; i++) {
        for (size_t d = 0; d < (size_t)v->draws; d++)
            v->work[d] = draws[d * v->pixels + i];
        null[i] = maximum > 0.0 ? fi_median(v->work, (size_t)v->draws) / maximum : 0.0;
        if (out)
            out[i] = (float)null[i];
    }
    return percentile(null, v->pixels, null_percentile);
}

/* From units of the maximum to those of the normalised map. */
static double on_scale(double value, fi_difference_range range, featinv_normalize normalization) {
    if (normalization == FEATINV_NORMALIZE_MAX || !(range.high > range.low))
        return value;
    return (value * range.high - range.low) / (range.high - range.low);
}

static void finish_concept(viz *v, int64_t first, int64_t n, int64_t concept) {
    size_t at = (size_t)((first + n) * v->count + concept), pairs = (size_t)v->pairs;
    const uint8_t *altered = pictures_of(v, variant(v, n, concept, 0));
    const featinv_visualize_options *o = &v->options;
    fi_difference_range range = fi_difference_median(
        v->medians, v->work, pictures_of(v, variant(v, n, -1, 0)), altered, pairs, v->pixels);
    double threshold = o->threshold;
    if (v->draws) {
        float *out = v->null_map ? v->null_map + at * v->pixels : NULL;
        double own = finish_null(out, v, n, concept, range.high);
        if (threshold < 0.0)
            threshold = on_scale(own, range, o->normalization);
    }
    fi_difference_finish(v->map + at * v->pixels, v->mask ? v->mask + at * v->pixels : NULL,
                         v->medians, v->pixels, range, o->normalization, threshold);
    if (o->maxima)
        o->maxima[at] = range.high;
    if (v->altered)
        memcpy(v->altered + at * pairs * v->pixels * 3, altered, pairs * v->pixels * 3);
}

static void finish_block(viz *v, int64_t first, int64_t count) {
    size_t bytes = (size_t)v->pairs * v->pixels * 3;
    for (int64_t n = 0; n < count; n++) {
        if (v->originals)
            memcpy(v->originals + (size_t)(first + n) * bytes, pictures_of(v, variant(v, n, -1, 0)),
                   bytes);
        for (int64_t c = 0; c < v->count; c++)
            finish_concept(v, first, n, c);
    }
}

/* ---------------------------------------------------------------- the call ------------------- */

static featinv_status run(viz *v) {
    featinv_status status = FEATINV_OK;
    for (int64_t first = 0; !status && first < v->maps; first += v->block) {
        int64_t count = v->maps - first < v->block ? v->maps - first : v->block;
        bool whole = false;
        status = make_variants(v, first, count);
        if (!status && !v->net) /* weights load when everything else is known to be right */
            status = fi_session_begin(v->session, FI_PARTS_GENERATOR, &v->net);
        if (!status)
            status = draw_block(&whole, v, first, count);
        if (whole) /* also where a cancel came with the last step */
            finish_block(v, first, count);
        if (whole && v->completed)
            *v->completed = first + count;
    }
    return status;
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* So many maps that their variants fill the sampler's batches, as far as memory allows. */
static void choose_block(viz *v) {
    int64_t group = v->session->batch > v->pairs ? v->session->batch / v->pairs : 1;
    double bytes = (double)v->variants * ((double)v->map_size * 2.0 * sizeof(float) +
                                          (double)v->pairs * (double)v->pixels * 3.0);
    int64_t most = bytes < (double)memory_limit ? (int64_t)((double)memory_limit / bytes) : 1;
    v->block = group / common_divisor(group, v->variants);
    v->block = v->block < most ? v->block : most;
    v->block = v->block < v->maps ? v->block : v->maps;
}

static void *provide(featinv_status *status, int64_t a, int64_t b, int64_t c, size_t element) {
    const int64_t shape[3] = {a, b, c};
    size_t bytes = 0;
    if (*status)
        return NULL;
    void *memory = fi_checked_size(&bytes, shape, 3, element) ? malloc(bytes + 1) : NULL;
    if (!memory)
        *status = fi_fail_memory(bytes);
    return memory;
}

static featinv_status allocate(viz *v) {
    const fi_bundle *b = v->session->model->bundle;
    featinv_status status = FEATINV_OK;
    size_t dimension = 0;
    int64_t all = v->block * v->variants, size = (int64_t)v->map_size;
    for (int64_t c = 0; c < v->count; c++)
        dimension =
            dimension_of(v, v->indices[c]) > dimension ? dimension_of(v, v->indices[c]) : dimension;
    if (v->draws)
        status =
            fi_null_open(&v->null, (size_t)b->map[0], (size_t)(b->map[1] * b->map[2]), dimension);
    v->drawn = provide(&status, all, size, 1, sizeof *v->drawn);
    v->packed = provide(&status, all, size, 1, sizeof *v->packed);
    v->place = provide(&status, all, 1, 1, sizeof *v->place);
    v->pictures = provide(&status, all, v->pairs, (int64_t)v->pixels, 3);
    v->medians = provide(&status, 2 + v->draws, (int64_t)v->pixels, 1, sizeof *v->medians);
    v->work = provide(&status, v->pairs > v->draws ? v->pairs : v->draws, 1, 1, sizeof *v->work);
    if (v->noise)
        v->lane_noise =
            provide(&status, all, v->pairs, (int64_t)v->latent_size, sizeof *v->lane_noise);
    return status;
}

static void release(viz *v) {
    fi_null_close(&v->null);
    void *const memory[] = {v->drawn,   v->packed, v->place,    v->pictures, v->lane_noise,
                            v->medians, v->work,   v->owned[0], v->owned[1]};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        free(memory[i]);
}

/* ---------------------------------------------------------------- arguments ------------------ */

static featinv_status read_options(viz *v, const featinv_visualize_options *options) {
    featinv_visualize_options *o = &v->options;
    featinv_sample_options sampling;
    featinv_status status = featinv_visualize_options_init(o, sizeof *o, NULL);
    if (!status)
        status = fi_options_read(o, sizeof *o, options);
    if (!status)
        status = fi_difference_check(o->normalization, o->threshold);
    if (!status && (o->pairs < 1 || o->pairs > 1 << 20))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "pairs is %d: it must be 1 to 1048576", o->pairs);
    if (!status && (o->null_draws < 0 || o->null_draws > 1 << 20))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "null draws is %d: it must be 0 to 1048576",
                         o->null_draws);
    if (!status && !o->null_draws && (o->threshold < 0.0 || o->null_map))
        status = fi_fail(FEATINV_ERROR_ARGUMENT, "%s needs at least one null draw",
                         o->null_map ? "the null map" : "a threshold from the null");
    const featinv_model *model = v->session ? v->session->model : NULL;
    if (!status)
        status = featinv_sample_options_init(&sampling, sizeof sampling, model);
    if (!status)
        status = fi_options_read(&sampling, sizeof sampling, o->sampling);
    if (status)
        return status;
    if (sampling.step_noise || sampling.trace_x || sampling.trace_x0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "step noise and traces do not go with visualize");
    sampling.samples = o->pairs;
    status = fi_sample_begin(v->session, &v->sampling, &sampling);
    v->completed = status ? NULL : v->sampling.completed;
    v->sampling.completed = NULL; /* a run would count its lanes there */
    return status;
}

static featinv_status check_concepts(const viz *v, int32_t count) {
    if (!v->concepts)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no concepts");
    if (count < 1 || !v->indices)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%d concepts: at least one is wanted",
                       v->indices ? count : 0);
    const featinv_concepts_details *info = &v->concepts->info;
    int32_t channels = v->session->model->bundle->map[0];
    if (info->channels != channels)
        return fi_fail(FEATINV_ERROR_SHAPE, "the concepts have %d channels, the bundle's maps %d",
                       info->channels, channels);
    for (int32_t i = 0; i < count; i++)
        if (v->indices[i] < FEATINV_COMPLEMENT || v->indices[i] >= info->count)
            return fi_fail(FEATINV_ERROR_ARGUMENT,
                           "concept %d: there are 0 to %d, and %d for the complement",
                           v->indices[i], info->count - 1, FEATINV_COMPLEMENT);
    return FEATINV_OK;
}

/* Noise for every map and pair; one latent for all is the sampler's own matter. */
static featinv_status read_noise(viz *v) {
    const fi_bundle *b = v->session->model->bundle;
    const featinv_tensor *noise = v->sampling.noise;
    int64_t shape[4] = {v->maps * v->pairs, b->latent[0], b->latent[1], b->latent[2]};
    const void *data = NULL;
    if (!noise || (noise->ndim == 4 && noise->shape && noise->shape[0] == 1))
        return FEATINV_OK;
    featinv_status status =
        fi_tensor_input(&data, &v->owned[1], noise, "noise", FEATINV_DTYPE_F32, 4, shape);
    v->noise = data;
    return status;
}

static featinv_status output(void **data, const featinv_tensor *tensor, const char *what,
                             featinv_dtype dtype, int32_t ndim, const int64_t *shape) {
    return tensor ? fi_tensor_data(data, tensor, what, dtype, ndim, shape) : FEATINV_OK;
}

static featinv_status open_outputs(viz *v, const featinv_tensor *map, const featinv_tensor *mask) {
    const fi_bundle *b = v->session->model->bundle;
    const featinv_visualize_options *o = &v->options;
    int64_t plane[4] = {v->maps, v->count, b->image[1], b->image[2]};
    int64_t first[5] = {v->maps, v->pairs, b->image[1], b->image[2], 3};
    int64_t second[6] = {v->maps, v->count, v->pairs, b->image[1], b->image[2], 3};
    int64_t changed[5] = {v->maps, v->count, b->map[0], b->map[1], b->map[2]};
    void *data[6] = {NULL};
    featinv_status status = fi_tensor_data(&data[0], map, "the map", FEATINV_DTYPE_F32, 4, plane);
    if (!status)
        status = output(&data[1], mask, "the mask", FEATINV_DTYPE_U8, 4, plane);
    if (!status)
        status = output(&data[2], o->null_map, "the null map", FEATINV_DTYPE_F32, 4, plane);
    if (!status)
        status = output(&data[3], o->originals, "the originals", FEATINV_DTYPE_U8, 5, first);
    if (!status)
        status = output(&data[4], o->altered, "the altered pictures", FEATINV_DTYPE_U8, 6, second);
    if (!status)
        status =
            output(&data[5], o->altered_maps, "the altered maps", FEATINV_DTYPE_F32, 5, changed);
    v->map = data[0];
    v->mask = data[1];
    v->null_map = data[2];
    v->originals = data[3];
    v->altered = data[4];
    v->altered_maps = data[5];
    return status;
}

static featinv_status read_maps(viz *v, const featinv_tensor *maps) {
    const fi_bundle *b = v->session->model->bundle;
    const int64_t shape[4] = {-1, b->map[0], b->map[1], b->map[2]};
    const void *data = NULL;
    featinv_status status =
        fi_tensor_input(&data, &v->owned[0], maps, "maps", FEATINV_DTYPE_F32, 4, shape);
    if (status)
        return status;
    v->input = data;
    v->maps = maps->shape[0];
    v->map_size = (size_t)b->map[0] * (size_t)b->map[1] * (size_t)b->map[2];
    v->pixels = (size_t)b->image[1] * (size_t)b->image[2];
    v->latent_size = (size_t)b->latent[0] * (size_t)b->latent[1] * (size_t)b->latent[2];
    v->pairs = v->options.pairs;
    v->draws = v->options.null_draws;
    v->variants = 1 + v->count * (1 + v->draws);
    double lanes = (double)v->maps * (double)v->variants * (double)v->pairs;
    if (lanes > 1e12) /* counts of steps must fit, too */
        return fi_fail(FEATINV_ERROR_LIMIT, "%g pictures are too many", lanes);
    return fi_check_finite(data, (size_t)v->maps * v->map_size, "maps");
}

featinv_status featinv_visualize(const featinv_tensor *map, const featinv_tensor *mask,
                                 featinv_session *session, const featinv_concepts *concepts,
                                 const int32_t *indices, int32_t count, const featinv_tensor *maps,
                                 const featinv_visualize_options *options) {
    viz v = {.session = session, .concepts = concepts, .indices = indices, .count = count};
    featinv_status status = read_options(&v, options);
    if (!status)
        status = check_concepts(&v, count);
    if (!status)
        status = read_maps(&v, maps);
    if (!status)
        status = open_outputs(&v, map, mask);
    if (!status)
        status = read_noise(&v);
    if (!status)
        status =
            fi_sample_units(&v.progress.total, session->model, v.maps * v.variants, &v.sampling);
    if (!status && v.maps) {
        choose_block(&v);
        v.progress.call = v.sampling.progress;
        v.progress.user_data = v.sampling.user_data;
        status = allocate(&v);
        if (!status)
            status = run(&v);
    }
    release(&v);
    return status;
}
