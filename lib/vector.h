/* The inner loops of self-representation, written in the compiler's vectors: the order of every
 * sum is fixed, so bits do not depend on threads, and x86-64 gets AVX2 where the processor has
 * it. */
#ifndef FI_VECTOR_H
#define FI_VECTOR_H

#include <stdint.h>

/* Functions with this mark exist twice on x86-64 and the loader picks; elsewhere once.
 * Sanitizers run before the loader could ask the processor. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__)
#define FI_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FI_CLONES
#endif

#define FI_UNROLL _Pragma("GCC unroll 8") /* so that sums stay in registers */

/* Dot product in float64 of float32 rows. */
double fi_dot(const float *a, const float *b, int64_t d);
/* of a float32 row and a float64 vector */
double fi_dot_mixed(const float *a, const double *b, int64_t d);
/* r = x - sum over k of c[k] rows[k] */
void fi_residual(double *r, const float *x, const float *const *rows, const double *c,
                 int32_t count, int64_t d);
double fi_square_norm(const double *r, int64_t d);
/* Float32 dot product, for entries of the Gram matrix that are not kept. */
float fi_dot_single(const float *a, const float *b, int64_t d);

enum { FI_WEAKEST_OF = 96 };
/* Where the smallest magnitude of FI_WEAKEST_OF values stands; the first of equal ones. */
int32_t fi_weakest(const float *values);

enum { FI_SCAN_WIDTH = 64 };
/* A sum of value[k] times row index[k]. */
typedef struct fi_combination {
    const int32_t *index;
    const float *value;
    int32_t count;
} fi_combination;

/* out = unit (base - sum of rows of origin, `stride` values each), for FI_SCAN_WIDTH values;
 * returns 1 when any is larger than limit in magnitude, else leaves out alone. next: what a later
 * call sums at the same place; its rows are called into the caches meanwhile. */
int32_t fi_scan(float *out, const int16_t *base, const int16_t *origin, int64_t stride,
                const fi_combination *sum, const fi_combination *next, float unit, float limit);
/* Returns 1 when any of FI_SCAN_WIDTH values is larger than limit in magnitude, or not a number. */
int32_t fi_exceeds(const float *values, float limit);

#endif
