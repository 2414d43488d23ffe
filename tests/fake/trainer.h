/* Training of the fake backend: one line through the data.
 *
 * What is trained are the tensors whose key begins with "control." (joint: all). With W the sum of
 * all their values, a sample's loss is (W + mean of its map - mean of its noise)^2, so that every
 * element has the same gradient. The update is gradient descent; the moments keep the last gradient
 * and its square. FAKE_NORM is given in place of the gradient's norm. */
#ifndef FAKE_TRAINER_H
#define FAKE_TRAINER_H

enum { KINDS = FI_TRAINED_AVERAGE + 1 };

struct fi_trainer {
    fi_trainer_plan plan;
    int count;
    struct {
        const tensor *of;
        int64_t size;
        float *data[KINDS];
    } all[MAX_TENSORS];
};

static void trainer_destroy(fi_trainer *t) {
    for (int i = 0; i < t->count; i++)
        for (int k = 0; k < KINDS; k++)
            free(t->all[i].data[k]);
    free(t);
}

static bool listed(const fi_trainer *t, const char *key) {
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->all[i].of->key, key) == 0)
            return true;
    return false;
}

static int trainer_create(fi_trainer **out, fi_net *net, const fi_trainer_plan *plan) {
    fi_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return FEATINV_ERROR_MEMORY;
    t->plan = *plan;
    for (int i = 0; i < net->count; i++) {
        const tensor *of = &net->tensors[i];
        if ((strncmp(of->key, "control.", 8) != 0 && plan->mode != FI_TRAIN_JOINT) ||
            listed(t, of->key))
            continue;
        int64_t size = 1;
        for (int32_t k = 0; k < of->ndim; k++)
            size *= of->shape[k];
        t->all[t->count].of = of;
        t->all[t->count].size = size;
        for (int k = 0; k < KINDS; k++)
            t->all[t->count].data[k] = calloc((size_t)size, sizeof(float));
        for (int k = 0; k < KINDS; k += FI_TRAINED_AVERAGE)
            memcpy(t->all[t->count].data[k], of->data, (size_t)size * sizeof(float));
        t->count++;
    }
    *out = t;
    if (!fail("trainer_create"))
        return 0;
    trainer_destroy(t);
    *out = NULL;
    return FEATINV_ERROR_COMPUTE;
}

static int trainer_count(fi_trainer *t, int64_t *count) {
    *count = t->count;
    return fail("trainer_count");
}

static int trainer_tensor(fi_trainer *t, int64_t index, const char **key, const int64_t **shape,
                          int32_t *ndim) {
    *key = t->all[index].of->key;
    *shape = t->all[index].of->shape;
    *ndim = t->all[index].of->ndim;
    return fail("trainer_tensor");
}

static int trainer_forward(fi_trainer *t, double *losses, const fi_trainer_batch *batch,
                           int32_t backward) {
    double sum = 0.0;
    int64_t map = volume(t->plan.map), latent = volume(t->plan.latent);
    wait_a_while();
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < t->all[i].size; k++)
            sum += t->all[i].data[FI_TRAINED_VALUE][k];
    for (int64_t n = 0; n < batch->n; n++) {
        double error =
            sum + mean(batch->maps + n * map, map) - mean(batch->noise + n * latent, latent);
        losses[n] = error * error;
        for (int i = 0; i < t->count && backward; i++)
            for (int64_t k = 0; k < t->all[i].size; k++)
                t->all[i].data[FI_TRAINED_GRADIENT][k] += (float)(2.0 * batch->weights[n] * error);
    }
    return fail("trainer_forward");
}

static int trainer_norm(fi_trainer *t, double *norm) {
    const char *wanted = getenv("FAKE_NORM");
    double sum = 0.0;
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < t->all[i].size; k++)
            sum += pow(t->all[i].data[FI_TRAINED_GRADIENT][k], 2.0);
    *norm = wanted ? strtod(wanted, NULL) : sqrt(sum);
    return fail("trainer_norm");
}

static int trainer_update(fi_trainer *t, double rate, double factor, int64_t step,
                          double average_decay) {
    (void)step;
    if (fail("trainer_update"))
        return FEATINV_ERROR_COMPUTE;
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < t->all[i].size; k++) {
            float *const *data = t->all[i].data;
            float g = data[FI_TRAINED_GRADIENT][k] *= (float)factor;
            data[FI_TRAINED_FIRST][k] = g;
            data[FI_TRAINED_SECOND][k] = g * g;
            data[FI_TRAINED_VALUE][k] -= (float)rate * g;
            data[FI_TRAINED_AVERAGE][k] +=
                (float)(1.0 - average_decay) *
                (data[FI_TRAINED_VALUE][k] - data[FI_TRAINED_AVERAGE][k]);
        }
    return 0;
}

static int trainer_clear(fi_trainer *t) {
    for (int i = 0; i < t->count; i++)
        memset(t->all[i].data[FI_TRAINED_GRADIENT], 0, (size_t)t->all[i].size * sizeof(float));
    return fail("trainer_clear");
}

static int trainer_read(fi_trainer *t, int32_t what, int64_t index, float *values) {
    memcpy(values, t->all[index].data[what], (size_t)t->all[index].size * sizeof *values);
    return fail("trainer_read");
}

static int trainer_write(fi_trainer *t, int32_t what, int64_t index, const float *values) {
    memcpy(t->all[index].data[what], values, (size_t)t->all[index].size * sizeof *values);
    return fail("trainer_write");
}

#endif
