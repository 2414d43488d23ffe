#include "sparse.h"

#include <stdlib.h>

void fi_sparse_free(fi_sparse *matrix) {
    free(matrix->offsets);
    free(matrix->indices);
    free(matrix->values);
    *matrix = (fi_sparse){0};
}
