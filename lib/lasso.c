#include "lasso.h"

#include "error.h"
#include "vector.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef double doubles4 __attribute__((vector_size(32), aligned(8), may_alias));
typedef float floats8 __attribute__((vector_size(32), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline)) /* into both clones */

/* ---------------------------------------------------------------- memory --------------------- */

featinv_status fi_lasso_reserve(fi_lasso *lasso, int32_t count) {
    if (count <= lasso->capacity)
        return FEATINV_OK;
    const int64_t room = ((int64_t)count + 31) / 32 * 32;
    const size_t n = (size_t)room, doubles = 2 * n * n + 5 * n, floats = n * n + 2 * n;
    if (room > 1 << 20)
        return fi_fail(FEATINV_ERROR_MEMORY, "a support of %d rows", count);
    const size_t bytes =
        doubles * sizeof(double) + floats * sizeof(float) + n * sizeof(int32_t) + 2 * n;
    fi_lasso_free(lasso);
    double *next = malloc(bytes);
    if (!next)
        return fi_fail_memory(bytes);
    lasso->memory = next;
    lasso->h = next;
    lasso->factor = next += n * n;
    lasso->b = next += n * n;
    lasso->c = next += n;
    lasso->target = next += n;
    lasso->work = next += n; /* two of them */
    float *single = (float *)(next + 2 * n);
    lasso->single = single;
    lasso->c_single = single += n * n;
    lasso->g_single = single += n;
    lasso->support = (int32_t *)(single + n);
    lasso->sign = (int8_t *)(lasso->support + n);
    lasso->place = lasso->sign + n;
    lasso->capacity = lasso->stride = (int32_t)room;
    return FEATINV_OK;
}

void fi_lasso_free(fi_lasso *lasso) {
    free(lasso->memory);
    *lasso = (fi_lasso){0};
}

/* ---------------------------------------------------------------- coordinate descent --------- */

INLINE float soften(float value, float lambda) {
    return value > lambda ? value - lambda : value < -lambda ? value + lambda : 0.0f;
}

INLINE float sweep(fi_lasso *l, int32_t padded, float lambda) {
    float largest = 0.0f;
    for (int32_t k = 0; k < l->count; k++) {
        const float *row = l->single + (int64_t)k * l->stride;
        const float old = l->c_single[k];
        const float reach = l->g_single[k] + row[k] * old;
        if (old == 0.0f && reach <= lambda && reach >= -lambda)
            continue;
        const float value = soften(reach, lambda) / row[k], change = value - old;
        if (change == 0.0f)
            continue;
        l->c_single[k] = value;
        largest = fmaxf(largest, fabsf(change));
        for (int32_t i = 0; i < padded; i += 8)
            *(floats8 *)(l->g_single + i) -= change * *(const floats8 *)(row + i);
    }
    return largest;
}

FI_CLONES void fi_lasso_descend(fi_lasso *l, double lambda) {
    enum { SWEEPS = 40 };
    const int32_t m = l->count, padded = (m + 7) / 8 * 8;
    for (int32_t k = 0; k < m; k++) {
        float *row = l->single + (int64_t)k * l->stride;
        const double *exact = l->h + (int64_t)k * l->stride;
        for (int32_t i = 0; i < m; i++)
            row[i] = (float)exact[i];
        for (int32_t i = m; i < padded; i++)
            row[i] = 0.0f;
    }
    float size = 0.0f;
    for (int32_t i = 0; i < padded; i++) {
        double sum = i < m ? l->b[i] : 0.0;
        for (int32_t k = 0; i < m && k < m; k++)
            if (l->c[k] != 0.0)
                sum -= l->h[(int64_t)i * l->stride + k] * l->c[k];
        l->g_single[i] = (float)sum;
        l->c_single[i] = i < m ? (float)l->c[i] : 0.0f;
        size = fmaxf(size, fabsf(l->g_single[i]));
    }
    for (int sweeps = 0; sweeps < SWEEPS; sweeps++)
        if (sweep(l, padded, (float)lambda) <= 1e-4f * size)
            break;
    for (int32_t k = 0; k < m; k++)
        l->c[k] = (double)l->c_single[k];
}

/* ---------------------------------------------------------------- the factor ----------------- */

INLINE double dot(const double *a, const double *b, int32_t n) {
    doubles4 s = {0};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4)
        s += *(const doubles4 *)(a + i) * *(const doubles4 *)(b + i);
    double sum = (s[0] + s[1]) + (s[2] + s[3]);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

INLINE double *factor_row(const fi_lasso *l, int32_t i) {
    return l->factor + (int64_t)i * l->stride;
}

INLINE double h_at(const fi_lasso *l, int32_t i, int32_t k) {
    return l->h[(int64_t)i * l->stride + k];
}

/* y = L^-1 y over the first n rows. */
INLINE void forward(const fi_lasso *l, double *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const double *row = factor_row(l, i);
        y[i] = (y[i] - dot(row, y, i)) / row[i];
    }
}

/* y = L^-T y */
INLINE void backward(const fi_lasso *l, double *y, int32_t n) {
    for (int32_t i = n - 1; i >= 0; i--) {
        const double *row = factor_row(l, i);
        const double value = y[i] /= row[i];
        for (int32_t k = 0; k < i; k++)
            y[k] -= value * row[k];
    }
}

/* Makes row i of the factor for `atom` over the rows before it; returns what is left of the atom's
 * square norm beside them. */
INLINE double make_row(fi_lasso *l, int32_t i, int32_t atom) {
    double *row = factor_row(l, i);
    for (int32_t k = 0; k < i; k++)
        row[k] = h_at(l, atom, l->support[k]);
    forward(l, row, i);
    return h_at(l, atom, atom) - dot(row, row, i);
}

/* Takes the entry at `position` out of support and factor. The rows behind it are made again:
 * what is left of them can only grow when an atom before them goes. */
INLINE void take_out(fi_lasso *l, int32_t position) {
    l->place[l->support[position]] = 0;
    l->size--;
    for (int32_t i = position; i < l->size; i++) {
        l->support[i] = l->support[i + 1];
        l->sign[i] = l->sign[i + 1];
    }
    for (int32_t i = position; i < l->size; i++) {
        const double left = make_row(l, i, l->support[i]);
        factor_row(l, i)[i] = sqrt(fmax(left, 1e-300));
    }
}

/* The atom depends on the support: it is v of it, v = H_SS^-1 h. Moves along the line on which
 * the fit stays (c_atom + t, c_S - t v), in the direction that does not raise |c|_1, until a
 * coefficient is zero, and takes that one out. Returns true when the atom itself went to zero. */
INLINE bool slide(fi_lasso *l, int32_t atom, int8_t sign) {
    double *v = l->work, slope = (double)sign;
    memcpy(v, factor_row(l, l->size), (size_t)l->size * sizeof *v);
    backward(l, v, l->size);
    for (int32_t i = 0; i < l->size; i++)
        slope -= (double)l->sign[i] * v[i];
    const double way = slope > 0.0 && l->c[atom] != 0.0 ? -(double)sign : (double)sign;
    double reach = way == (double)sign ? INFINITY : fabs(l->c[atom]);
    int32_t blocking = -1;
    for (int32_t i = 0; i < l->size; i++) {
        const double pace = -way * v[i] * (double)l->sign[i]; /* of |c_i| */
        const double size = fabs(l->c[l->support[i]]);
        if (pace < 0.0 && size < reach * -pace) {
            reach = size / -pace;
            blocking = i;
        }
    }
    if (!isfinite(reach))
        return true;
    for (int32_t i = 0; i < l->size; i++)
        l->c[l->support[i]] -= way * reach * v[i];
    l->c[atom] += way * reach;
    if (blocking < 0) {
        l->c[atom] = 0.0;
        return true;
    }
    l->c[l->support[blocking]] = 0.0;
    take_out(l, blocking);
    return false;
}

/* Puts an atom into support and factor. Returns how often it was found dependent. */
INLINE int32_t put_in(fi_lasso *l, int32_t atom, int8_t sign, double pivot) {
    const bool start = l->c[atom] != 0.0;
    int32_t dependent = 0;
    for (;;) {
        const double left = make_row(l, l->size, atom);
        if (left > pivot * h_at(l, atom, atom)) {
            factor_row(l, l->size)[l->size] = sqrt(left);
            l->support[l->size] = atom;
            l->sign[l->size++] = sign;
            l->place[atom] = 1;
            return dependent;
        }
        dependent++;
        if (slide(l, atom, sign)) {
            l->c[atom] = 0.0;
            l->place[atom] = start ? 0 : -1;
            return dependent;
        }
    }
}

/* ---------------------------------------------------------------- the active set ------------- */

/* The minimum on the support with its signs held. */
INLINE void find_target(fi_lasso *l, double lambda) {
    for (int32_t i = 0; i < l->size; i++)
        l->target[i] = l->b[l->support[i]] - lambda * (double)l->sign[i];
    forward(l, l->target, l->size);
    backward(l, l->target, l->size);
}

/* Goes to the target, or as far as all signs hold. Returns whether it got there. */
INLINE bool advance(fi_lasso *l) {
    double share = 1.0;
    int32_t blocking = -1;
    for (int32_t i = 0; i < l->size; i++) {
        const double from = l->c[l->support[i]], to = l->target[i];
        if (to * (double)l->sign[i] > 0.0)
            continue;
        const double part = from == 0.0 ? 0.0 : from / (from - to);
        if (blocking < 0 || part < share) {
            share = part;
            blocking = i;
        }
    }
    for (int32_t i = 0; i < l->size; i++) {
        double *c = &l->c[l->support[i]];
        *c = blocking < 0 ? l->target[i] : *c + share * (l->target[i] - *c);
    }
    if (blocking < 0)
        return true;
    const int32_t atom = l->support[blocking];
    const bool fresh = share == 0.0;
    l->c[atom] = 0.0;
    take_out(l, blocking);
    if (fresh) /* it came in by rounding alone */
        l->place[atom] = -1;
    return false;
}

/* The atom outside of the support whose gradient exceeds the limit most, or -1. */
INLINE int32_t find_violator(fi_lasso *l, double limit, int8_t *sign) {
    double *c = l->work;
    for (int32_t i = 0; i < l->size; i++)
        c[i] = l->c[l->support[i]];
    int32_t found = -1;
    for (int32_t k = 0; k < l->count; k++) {
        if (l->place[k])
            continue;
        const double *row = l->h + (int64_t)k * l->stride;
        double g = l->b[k];
        for (int32_t i = 0; i < l->size; i++)
            g -= row[l->support[i]] * c[i];
        if (fabs(g) > limit) {
            limit = fabs(g);
            found = k;
            *sign = g > 0.0 ? 1 : -1;
        }
    }
    return found;
}

FI_CLONES int32_t fi_lasso_solve(fi_lasso *l, double lambda, double slack, double pivot) {
    int32_t dependent = 0;
    l->size = 0;
    memset(l->place, 0, (size_t)l->count);
    for (int32_t k = 0; k < l->count; k++)
        if (l->c[k] != 0.0)
            dependent += put_in(l, k, l->c[k] > 0.0 ? 1 : -1, pivot);
    /* A finite method; the bound is for rounding that runs in circles. */
    for (int64_t step = 0; step < 100 + 20 * (int64_t)l->count; step++) {
        find_target(l, lambda);
        if (!advance(l))
            continue;
        int8_t sign = 0;
        const int32_t atom = find_violator(l, lambda + slack, &sign);
        if (atom < 0)
            break;
        dependent += put_in(l, atom, sign, pivot);
    }
    return dependent;
}

FI_CLONES void fi_lasso_correct(const fi_lasso *l, double *step, const double *residual) {
    memcpy(step, residual, (size_t)l->size * sizeof *step);
    forward(l, step, l->size);
    backward(l, step, l->size);
}
