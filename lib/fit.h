/* A running fit of concepts, and its steps. */
#ifndef FI_FIT_H
#define FI_FIT_H

#include "fit_rows.h"
#include "selfrep.h"
#include "session.h"
#include "sparse.h"

typedef struct fi_fit {
    featinv_fit_options o;
    featinv_session *session;
    fi_progress progress;
    fi_rows rows;
    fi_sparse coefficients; /* of the last solve, over `rows` */
    fi_selfrep_summary summary;
    uint8_t *removed; /* (rows.count) outliers */
    int64_t *kept;    /* (kept_count): the other rows */
    int64_t kept_count;
    fi_sparse affinity;  /* of the rows kept */
    double *eigenvalues; /* (eigenvalue_count): the smallest of its Laplacian */
    int64_t eigenvalue_count;
    int32_t *labels; /* (kept_count): of the clustering at hand */
    int32_t count;   /* its K */
} fi_fit;

/* Bases side by side, being collected: (channels, total). */
typedef struct fi_collection {
    double **parts; /* (count): (channels, dimension) each */
    int32_t *offsets;
    int32_t count;
} fi_collection;

featinv_status fi_collection_make(fi_collection *collection, int32_t count);
void fi_collection_free(fi_collection *collection);

/* Reports that `done` units are. Units are rows: each counts once in the first solve, once in the
 * second, once in the clustering; in methods without solves once. Errors: CANCELLED. */
featinv_status fi_fit_reach(fi_fit *fit, int64_t done);
/* Lists the rows that are not removed. Errors: ARGUMENT where they are fewer than concepts. */
featinv_status fi_fit_keep(fi_fit *fit);
/* Numbers the clusters by size, largest first, of equals the one with the first row. order (count):
 * the old number of each. Errors: ARGUMENT where one is empty; MEMORY. */
featinv_status fi_fit_renumber(fi_fit *fit, int32_t *order);
/* Labels of `count` clusters of the embedding's first `count` columns. */
featinv_status fi_fit_cluster(fi_fit *fit, int32_t count);
/* Concepts of the clusters: a basis for each. */
featinv_status fi_fit_clusters(featinv_concepts **out, fi_fit *fit);
/* Concepts of the collected bases; those found by clustering get labels. Errors: UNSUPPORTED where
 * there are more dimensions than channels. */
featinv_status fi_fit_assemble(featinv_concepts **out, const fi_fit *fit, fi_collection *collection,
                               bool labelled);

featinv_status fi_fit_mcd(featinv_concepts **out, fi_fit *fit);
featinv_status fi_fit_kmeans(featinv_concepts **out, fi_fit *fit);
featinv_status fi_fit_pca(featinv_concepts **out, fi_fit *fit);

#endif
