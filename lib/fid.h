/* The Fréchet distance apart from its session, so that any linear algebra can be put under it. */
#ifndef FI_FID_H
#define FI_FID_H

#include "backend.h"
#include "featinv.h"

/* How the trace term is computed: AUTO takes the smaller problem. */
typedef enum { FI_FID_AUTO, FI_FID_ROWS, FI_FID_COVARIANCE } fi_fid_route;

/* Uses gemm, eigh, singular_values and cholesky of the table. Errors: ARGUMENT (fewer than two rows
 * a side, an index twice), MEMORY, what the backend says. */
featinv_status fi_fid_compute(double *distance, const featinv_fid *fid, const fi_backend *backend,
                              fi_fid_route route);

#endif
