#include "selfrep_column.h"

#include "error.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Stationarity, in units where tau is the threshold. */
#define GOAL 1e-11      /* refinement stops here */
#define TOLERANCE 5e-11 /* a row whose inner product is further above is a violator */
/* Of the solve on the oracle's inner products, and on float64 ones (there the slack in units of
 * alpha). */
#define SLACK_SINGLE 1e-6
#define PIVOT_SINGLE 1e-5
#define SLACK_EXACT 1e-11
#define PIVOT_EXACT 1e-13

/* Candidates of the first solve. A scan costs n times the support, a candidate too many only its
 * share of the first solve: the more rows, the more candidates pay. */
enum { FIRST_LEAST = 40, FIRST_MOST = 80, FIRST_SHARE = 100, WARM_CANDIDATES = 12 };

/* ---------------------------------------------------------------- memory --------------------- */

featinv_status fi_scratch_reserve(fi_scratch *s, int64_t d, int32_t room) {
    if (!s->residual && !(s->residual = malloc((size_t)d * sizeof *s->residual)))
        return fi_fail_memory((size_t)d * sizeof *s->residual);
    if (room > s->room) {
        const size_t n = (size_t)room * 2;
        const size_t bytes =
            n * (sizeof *s->rows + sizeof *s->entries + 3 * sizeof(double) + sizeof(int32_t));
        free(s->rows);
        s->room = 0;
        s->rows = malloc(bytes);
        if (!s->rows)
            return fi_fail_memory(bytes);
        s->entries = (const int16_t **)(s->rows + n);
        s->coefficients = (double *)(s->entries + n);
        s->gradient = s->coefficients + n;
        s->step = s->gradient + n;
        s->atoms = (int32_t *)(s->step + n);
        s->room = (int32_t)n;
    }
    return fi_lasso_reserve(&s->lasso, room);
}

void fi_scratch_free(fi_scratch *s) {
    fi_lasso_free(&s->lasso);
    free(s->residual);
    free(s->rows);
}

void fi_column_free(fi_column *column) {
    free(column->index);
    free(column->value);
    free(column->single);
}

static featinv_status column_reserve(fi_column *column, int32_t room) {
    if (room <= column->room)
        return FEATINV_OK;
    int32_t *index = realloc(column->index, (size_t)room * sizeof *index);
    column->index = index ? index : column->index;
    double *value = realloc(column->value, (size_t)room * sizeof *value);
    column->value = value ? value : column->value;
    float *single = realloc(column->single, (size_t)room * sizeof *single);
    column->single = single ? single : column->single;
    if (!index || !value || !single)
        return fi_fail_memory((size_t)room * sizeof *value);
    column->room = room;
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- what was found ------------- */

static void offer(fi_found *found, int32_t index, float value) {
    int32_t place = found->count;
    if (place == FI_FOUND_MOST) {
        if (!(fabsf(value) > found->floor))
            return;
        place = found->weakest;
    } else {
        found->count++;
    }
    found->index[place] = index;
    found->value[place] = value;
    if (found->count == FI_FOUND_MOST) {
        found->weakest = fi_weakest(found->value);
        found->floor = fabsf(found->value[found->weakest]);
    }
}

static bool in_support(const fi_column *column, int32_t index) {
    for (int32_t k = 0; k < column->support; k++)
        if (column->index[k] == index)
            return true;
    return false;
}

static bool in_dictionary(const fi_columns *columns, int64_t j, int64_t i) {
    return i != j && i < columns->gram->n && !(columns->removed && columns->removed[i]);
}

/* Takes those of FI_SCAN_WIDTH values from column `first` on that exceed the limit. */
static void take(const fi_columns *columns, int64_t j, const float *values, int64_t first,
                 float limit, bool also_support) {
    fi_column *column = &columns->all[j];
    for (int32_t k = 0; k < FI_SCAN_WIDTH; k++)
        if (fabsf(values[k]) > limit && in_dictionary(columns, j, first + k) &&
            (also_support || !in_support(column, (int32_t)(first + k))))
            offer(&column->found, (int32_t)(first + k), values[k]);
}

static float gather_limit(const fi_found *found) {
    return found->count == FI_FOUND_MOST ? found->floor : 0.0f;
}

void fi_column_gather(const fi_columns *columns, int64_t j, int64_t block) {
    const fi_gram *g = columns->gram;
    const int16_t *own = fi_gram_block(g, block, j);
    const fi_combination none = {0};
    float hit[FI_SCAN_WIDTH];
    for (int64_t k = 0; k < FI_GRAM_WIDTH; k += FI_SCAN_WIDTH) {
        const float limit = gather_limit(&columns->all[j].found);
        if (fi_scan(hit, own + k, own, 0, &none, &none, (float)g->unit, limit))
            take(columns, j, hit, block * FI_GRAM_WIDTH + k, limit, true);
    }
}

void fi_column_gather_products(const fi_columns *columns, int64_t j, const float *products) {
    for (int64_t k = 0; k < columns->gram->blocks * FI_GRAM_WIDTH; k += FI_SCAN_WIDTH) {
        const float limit = gather_limit(&columns->all[j].found);
        if (fi_exceeds(products + k, limit))
            take(columns, j, products + k, k, limit, true);
    }
}

/* ---------------------------------------------------------------- alpha ---------------------- */

/* Strongest first; equal ones by index. */
static void sort_found(fi_found *found) {
    for (int32_t k = 1; k < found->count; k++) {
        const int32_t index = found->index[k];
        const float value = found->value[k];
        int32_t place = k;
        for (; place > 0; place--) {
            const float before = fabsf(found->value[place - 1]);
            if (before > fabsf(value) ||
                (before == fabsf(value) && found->index[place - 1] < index))
                break;
            found->index[place] = found->index[place - 1];
            found->value[place] = found->value[place - 1];
        }
        found->index[place] = index;
        found->value[place] = value;
    }
}

static double product(const fi_columns *columns, int64_t i, int64_t k) {
    const fi_gram *g = columns->gram;
    return fi_dot(g->rows + i * g->d, g->rows + k * g->d, g->d);
}

/* max |<x_i, x_j>| in float64: over those that the oracle cannot tell from the strongest. */
static double strongest(const fi_columns *columns, int64_t j) {
    const fi_found *found = &columns->all[j].found;
    const float near =
        found->count ? fabsf(found->value[0]) - 2.0f * (float)columns->gram->rounding : 0.0f;
    const bool hidden = found->count == FI_FOUND_MOST && found->floor >= near;
    double largest = 0.0;
    for (int32_t k = 0; !hidden && k < found->count && fabsf(found->value[k]) >= near; k++)
        largest = fmax(largest, fabs(product(columns, found->index[k], j)));
    for (int64_t i = 0; hidden && i < columns->gram->n; i++)
        if (in_dictionary(columns, j, i))
            largest = fmax(largest, fabs(product(columns, i, j)));
    return largest;
}

/* The last solution without removed rows is a start; its support is no candidate. */
static int32_t drop_removed(const fi_columns *columns, fi_column *column, int64_t j) {
    int32_t kept = 0;
    for (int32_t k = 0; k < column->support; k++)
        if (in_dictionary(columns, j, column->index[k])) {
            column->index[kept] = column->index[k];
            column->value[kept++] = column->value[k];
        }
    return kept;
}

void fi_column_begin(const fi_columns *columns, int64_t j) {
    fi_column *column = &columns->all[j];
    fi_found *found = &column->found;
    sort_found(found);
    column->alpha = strongest(columns, j) / (columns->tau * columns->gamma);
    column->support = drop_removed(columns, column, j);
    column->begun = column->exact = column->stalled = false;
    const bool cold = column->support == 0;
    column->objective = column->violation = column->length = 0.0;
    const int64_t share = columns->gram->n / FIRST_SHARE;
    const int64_t first = share < FIRST_LEAST  ? FIRST_LEAST
                          : share > FIRST_MOST ? FIRST_MOST
                                               : share;
    const int64_t most = cold ? first : WARM_CANDIDATES;
    int32_t kept = 0;
    for (int32_t k = 0; k < found->count && kept < most; k++)
        if (!in_support(column, found->index[k])) {
            found->index[kept] = found->index[k];
            found->value[kept++] = found->value[k];
        }
    found->count = kept;
    /* orthogonal to all others, or alone: any alpha above 0 gives the empty row */
    column->done = !(column->alpha > 0.0);
    if (column->done)
        column->support = 0;
}

/* ---------------------------------------------------------------- the oracle ----------------- */

static double threshold(const fi_columns *columns, const fi_column *column) {
    return column->alpha * columns->tau;
}

/* Bound on |value - <x_i, r>| of the oracle's float32 values: of Gram entries combined in
 * float32, or of products with the residual rounded to float32. */
static double oracle_error(const fi_columns *columns, const fi_column *column) {
    const fi_gram *g = columns->gram;
    if (g->values)
        return (g->rounding + fi_gram_gamma(column->support + 4) * g->largest) *
               (1.0 + column->length);
    return fi_gram_gamma(g->d + 2) * column->residual * sqrt(g->largest) * (1.0 + 1e-6);
}

static float scan_limit(const fi_columns *columns, const fi_column *column) {
    return nextafterf((float)(threshold(columns, column) - oracle_error(columns, column)),
                      -INFINITY);
}

static fi_combination combination(const fi_column *column) {
    return (fi_combination){column->index, column->single, column->support};
}

void fi_column_scan(const fi_columns *columns, int64_t j, int64_t next, int64_t block) {
    const fi_gram *g = columns->gram;
    const int16_t *own = fi_gram_block(g, block, j), *origin = fi_gram_block(g, block, 0);
    const fi_combination sum = combination(&columns->all[j]);
    const fi_combination ahead = combination(&columns->all[next]);
    const float limit = scan_limit(columns, &columns->all[j]);
    float hit[FI_SCAN_WIDTH];
    for (int64_t k = 0; k < FI_GRAM_WIDTH; k += FI_SCAN_WIDTH)
        if (fi_scan(hit, own + k, origin + k, FI_GRAM_WIDTH, &sum, &ahead, (float)g->unit, limit))
            take(columns, j, hit, block * FI_GRAM_WIDTH + k, limit, false);
}

void fi_column_scan_products(const fi_columns *columns, int64_t j, const float *products) {
    const float limit = scan_limit(columns, &columns->all[j]);
    for (int64_t k = 0; k < columns->gram->blocks * FI_GRAM_WIDTH; k += FI_SCAN_WIDTH)
        if (fi_exceeds(products + k, limit))
            take(columns, j, products + k, k, limit, false);
}

static void make_residual(const fi_columns *columns, fi_scratch *s, int64_t j) {
    const fi_gram *g = columns->gram;
    const fi_column *column = &columns->all[j];
    for (int32_t k = 0; k < column->support; k++)
        s->rows[k] = g->rows + column->index[k] * g->d;
    fi_residual(s->residual, g->rows + j * g->d, s->rows, column->value, column->support, g->d);
}

void fi_column_residual(const fi_columns *columns, fi_scratch *s, int64_t j, float *out) {
    fi_column *column = &columns->all[j];
    make_residual(columns, s, j);
    column->residual = sqrt(fi_square_norm(s->residual, columns->gram->d));
    for (int64_t i = 0; i < columns->gram->d; i++)
        out[i] = (float)s->residual[i];
}

/* ---------------------------------------------------------------- solving -------------------- */

/* Inner products of the lasso's atoms with the row and with each other, as good as the column
 * needs. */
static void fill_products(const fi_columns *columns, fi_scratch *s, int64_t j) {
    const fi_gram *g = columns->gram;
    const bool exact = columns->all[j].exact;
    fi_lasso *l = &s->lasso;
    for (int32_t a = 0; a < l->count; a++) {
        s->rows[a] = g->rows + s->atoms[a] * g->d;
        l->b[a] = exact ? fi_dot(s->rows[a], g->rows + j * g->d, g->d)
                        : (double)fi_dot_single(s->rows[a], g->rows + j * g->d, g->d);
        for (int32_t k = 0; k <= a; k++)
            l->h[(int64_t)a * l->stride + k] =
                exact ? fi_dot(s->rows[a], s->rows[k], g->d)
                      : (double)fi_dot_single(s->rows[a], s->rows[k], g->d);
    }
}

/* The same from the kept Gram matrix. */
static void look_up_products(const fi_columns *columns, fi_scratch *s, int64_t j) {
    const fi_gram *g = columns->gram;
    fi_lasso *l = &s->lasso;
    for (int32_t a = 0; a < l->count; a++)
        s->entries[a] =
            fi_gram_block(g, s->atoms[a] / FI_GRAM_WIDTH, 0) + s->atoms[a] % FI_GRAM_WIDTH;
    for (int32_t a = 0; a < l->count; a++) {
        const int64_t offset = (int64_t)s->atoms[a] * FI_GRAM_WIDTH;
        const int64_t next = a + 1 < l->count ? (int64_t)s->atoms[a + 1] * FI_GRAM_WIDTH : offset;
        double *row = l->h + (int64_t)a * l->stride;
        l->b[a] = g->unit * s->entries[a][j * FI_GRAM_WIDTH];
        for (int32_t k = 0; k <= a; k++) {
            __builtin_prefetch(s->entries[k] + next);
            row[k] = g->unit * s->entries[k][offset];
        }
    }
}

/* Atoms of the lasso: the support, then what was found. */
static void fill(const fi_columns *columns, fi_scratch *s, int64_t j) {
    const fi_column *column = &columns->all[j];
    fi_lasso *l = &s->lasso;
    l->count = column->support + column->found.count;
    for (int32_t k = 0; k < l->count; k++) {
        const bool old = k < column->support;
        s->atoms[k] = old ? column->index[k] : column->found.index[k - column->support];
        l->c[k] = old ? column->value[k] : 0.0;
    }
    if (columns->gram->values && !column->exact)
        look_up_products(columns, s, j);
    else
        fill_products(columns, s, j);
    const double ridge = column->alpha * (1.0 - columns->tau);
    for (int32_t a = 0; a < l->count; a++) {
        const double *row = l->h + (int64_t)a * l->stride;
        for (int32_t k = 0; k < a; k++)
            l->h[(int64_t)k * l->stride + a] = row[k];
        l->h[(int64_t)a * l->stride + a] += ridge;
    }
}

/* Gradient on the support at the float64 residual; returns the largest violation. */
static double support_gradient(const fi_columns *columns, fi_scratch *s, int64_t j) {
    const fi_gram *g = columns->gram;
    const fi_column *column = &columns->all[j];
    const double ridge = column->alpha * (1.0 - columns->tau);
    const int32_t size = s->lasso.size;
    double largest = 0.0;
    fi_residual(s->residual, g->rows + j * g->d, s->rows, s->coefficients, size, g->d);
    for (int32_t k = 0; k < size; k++) {
        const double c = s->coefficients[k];
        s->gradient[k] = fi_dot_mixed(s->rows[k], s->residual, g->d) - ridge * c -
                         copysign(threshold(columns, column), c);
        largest = fmax(largest, fabs(s->gradient[k]));
    }
    return largest / column->alpha;
}

/* Iterative refinement with float64 residuals. False where a sign would turn or where it does
 * not come near enough: the oracle's inner products are too coarse for this column. */
static bool refine(const fi_columns *columns, fi_scratch *s, int64_t j) {
    fi_column *column = &columns->all[j];
    const int32_t size = s->lasso.size;
    double before = INFINITY;
    for (int round = 0; round < 8; round++) {
        column->violation = support_gradient(columns, s, j);
        if (column->violation <= GOAL || column->violation > 0.5 * before)
            break;
        before = column->violation;
        fi_lasso_correct(&s->lasso, s->step, s->gradient);
        for (int32_t k = 0; k < size; k++)
            if (!((s->coefficients[k] + s->step[k]) * s->coefficients[k] > 0.0))
                return false;
        for (int32_t k = 0; k < size; k++)
            s->coefficients[k] += s->step[k];
    }
    return column->violation <= TOLERANCE;
}

static void set_objective(const fi_columns *columns, fi_scratch *s, fi_column *column) {
    double length = 0.0, squares = 0.0;
    for (int32_t k = 0; k < column->support; k++) {
        length += fabs(column->value[k]);
        squares += column->value[k] * column->value[k];
    }
    column->length = length;
    column->objective = columns->tau * length + 0.5 * (1.0 - columns->tau) * squares +
                        fi_square_norm(s->residual, columns->gram->d) / (2.0 * column->alpha);
}

/* Solves on support and found rows, to float64. What was found is used up. */
static featinv_status solve(const fi_columns *columns, fi_scratch *s, int64_t j) {
    fi_column *column = &columns->all[j];
    fi_lasso *l = &s->lasso;
    const double before = column->exact ? column->objective : INFINITY;
    const int32_t found = column->found.count;
    featinv_status status =
        fi_scratch_reserve(s, columns->gram->d, column->support + found + FI_FOUND_MOST);
    if (!status)
        status = column_reserve(column, column->support + found);
    if (status)
        return status;
    for (;;) {
        fill(columns, s, j);
        if (found > 4)
            fi_lasso_descend(l, threshold(columns, column));
        const int32_t dependent =
            fi_lasso_solve(l, threshold(columns, column),
                           column->exact ? SLACK_EXACT * column->alpha : SLACK_SINGLE,
                           column->exact ? PIVOT_EXACT : PIVOT_SINGLE);
        for (int32_t k = 0; k < l->size; k++) {
            s->coefficients[k] = l->c[l->support[k]];
            s->rows[k] = columns->gram->rows + s->atoms[l->support[k]] * columns->gram->d;
        }
        const bool near = refine(columns, s, j);
        if ((near && !dependent) || column->exact)
            break;
        column->exact = true;
    }
    column->support = l->size;
    for (int32_t k = 0; k < l->size; k++) {
        column->index[k] = s->atoms[l->support[k]];
        column->value[k] = s->coefficients[k];
        column->single[k] = (float)s->coefficients[k];
    }
    column->found.count = 0;
    set_objective(columns, s, column);
    column->stalled = column->exact && !(column->objective < before);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- deciding ------------------- */

/* Keeps what surely or probably violates; returns whether one does so by more than a solve on
 * the oracle's inner products overlooks. */
static bool keep_sure(const fi_columns *columns, fi_column *column) {
    const double level = threshold(columns, column);
    const double error = oracle_error(columns, column) + 4.0 * SLACK_SINGLE;
    fi_found *found = &column->found;
    bool sure = false;
    for (int32_t k = 0; k < found->count; k++)
        sure |= fabs((double)found->value[k]) > level + error;
    int32_t kept = 0;
    for (int32_t k = 0; sure && k < found->count; k++)
        if (fabs((double)found->value[k]) > level) {
            found->index[kept] = found->index[k];
            found->value[kept++] = found->value[k];
        }
    if (sure)
        found->count = kept;
    return sure;
}

/* True where row i violates the conditions at the float64 residual. */
static bool violates(const fi_columns *columns, fi_scratch *s, int64_t j, int64_t i) {
    fi_column *column = &columns->all[j];
    const fi_gram *g = columns->gram;
    const double product = fi_dot_mixed(g->rows + i * g->d, s->residual, g->d);
    const double excess = fabs(product) / column->alpha - columns->tau;
    column->violation = fmax(column->violation, excess);
    return excess > TOLERANCE;
}

/* Decides in float64 on everything that the oracle left open; keeps the violators. */
static void verify(const fi_columns *columns, fi_scratch *s, int64_t j) {
    fi_column *column = &columns->all[j];
    fi_found *found = &column->found;
    const bool hidden = found->count == FI_FOUND_MOST;
    int32_t kept = 0;
    for (int32_t k = 0; k < found->count; k++)
        if (!in_support(column, found->index[k]) && violates(columns, s, j, found->index[k])) {
            found->index[kept] = found->index[k];
            found->value[kept++] = found->value[k];
        }
    found->count = kept;
    for (int64_t i = 0; hidden && !kept && i < columns->gram->n; i++)
        if (in_dictionary(columns, j, i) && !in_support(column, (int32_t)i) &&
            violates(columns, s, j, i))
            offer(found, (int32_t)i, (float)threshold(columns, column));
}

featinv_status fi_column_step(const fi_columns *columns, fi_scratch *s, int64_t j) {
    fi_column *column = &columns->all[j];
    if (!column->begun || (!column->stalled && keep_sure(columns, column))) {
        column->begun = true;
        return solve(columns, s, j);
    }
    if (column->found.count)
        make_residual(columns, s, j);
    verify(columns, s, j);
    column->done = column->found.count == 0 || column->stalled;
    if (column->done)
        return FEATINV_OK;
    column->exact = true;
    return solve(columns, s, j);
}
