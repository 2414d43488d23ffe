/* A set of concepts in memory. */
#ifndef FI_CONCEPTS_H
#define FI_CONCEPTS_H

#include "featinv.h"
#include "sparse.h"

#include <stdatomic.h>

/* Decompositions into concepts that overlap more than this have parts beyond any use. */
#define FI_SINGULAR_LEAST 1e-6

/* More dimensions together than any backbone has channels; what is derived costs their cube. */
enum { FI_MOST_DIMENSIONS = 4096 };

struct featinv_concepts {
    atomic_int references;
    featinv_concepts_details info; /* pointers are owned */
    int32_t *offsets, *labels;
    double *bases, *eigenvalues;
    char *class_name;
    fi_sparse coefficients; /* rows 0: not kept */
    /* Derived once. Orthonormal rows (rank, C) that span all bases; rank < total where they
     * overlap. */
    double *span;
    int64_t rank;
    /* The coefficients of the oblique decomposition are dual (total, C) times a feature: dual is
     * the pseudo-inverse of all bases side by side. NULL where they overlap (FI_SINGULAR_LEAST). */
    double *dual;
};

/* Takes over bases (C, total), offsets (count + 1) and, where not NULL, labels: owned from here on,
 * also on failure. Checks them and derives the rest (angles, singular values, dual). Bases off
 * orthonormal by more than 1e-12 (they came as float32) and less than 1e-6 are made orthonormal in
 * float64. Errors: ARGUMENT (offsets, total above C, bases that are not orthonormal, labels),
 * VALUE, LIMIT, MEMORY. */
featinv_status fi_concepts_new(featinv_concepts **out, double *bases, int32_t *offsets,
                               int32_t count, int32_t channels, int32_t *labels, int32_t label_ndim,
                               const int64_t *label_shape);

/* Basis of a concept as rows (dimension, C): fresh memory. Errors: MEMORY. */
featinv_status fi_concepts_rows(double **out, int32_t *dimension, const featinv_concepts *concepts,
                                int32_t index);

/* ARGUMENT error unless index is a concept's or FEATINV_COMPLEMENT. */
featinv_status fi_concepts_check_index(const featinv_concepts *concepts, int32_t index);

/* UNSUPPORTED error, naming the closest concepts, where there is no dual. */
featinv_status fi_concepts_check_dual(const featinv_concepts *concepts);

#endif
