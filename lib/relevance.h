/* Weights of classes in feature space. */
#ifndef FI_RELEVANCE_H
#define FI_RELEVANCE_H

#include "featinv.h"

/* out (channels) = weight at unit length. Errors: VALUE, ARGUMENT for zero. */
featinv_status fi_unit_weight(double *out, const double *weight, int64_t channels);

/* Length of a unit weight's projection on the span of the rows (rank, channels), orthonormal, and
 * of the rest; room for channels values. */
void fi_completeness(double *completeness, double *rest, double *room, const double *rows,
                     int64_t rank, int64_t channels, const double *unit);

/* out (K + 1): lengths of a unit weight's parts in each concept, the complement last. The concepts
 * have a dual. Errors: as fi_unit_weight, MEMORY. */
featinv_status fi_global_relevance(double *out, const featinv_concepts *concepts,
                                   const double *weight);

#endif
