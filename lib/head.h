/* What a bundle's head computes, read from its weights: from the spatial mean x of a map
 *   linear             logit = weight x + bias
 *   layernorm-linear   logit = weight (gain (x - mean x) / sqrt(var x + eps) + shift) + bias
 * for one class. */
#ifndef FI_HEAD_H
#define FI_HEAD_H

#include "session.h"

typedef struct fi_head {
    int64_t channels;
    /* d logit / d x, for a feature of unit spread where the head normalises: then it sums to zero
     * over the channels. (channels), owned. */
    double *weight;
    double constant;    /* the logit of what has no part in the features: bias and shift */
    int32_t normalizes; /* 1: the logit is weight x / spread + constant */
    double eps;
} fi_head;

/* Reads the head and holds it against the head program on probe maps of every class. The call must
 * have begun (fi_session_begin with the head). Errors: NOT_FOUND (class); UNSUPPORTED where the
 * head computes something else; READ, FORMAT, MEMORY. */
featinv_status fi_head_open(fi_head *head, featinv_session *session, int32_t class_index);
void fi_head_close(fi_head *head);

/* What weight x is divided by: sqrt(var x + eps), or 1. */
double fi_head_spread(const fi_head *head, const double *x);

#endif
