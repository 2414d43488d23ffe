/* Training data: files that become batches of image and view, place by place. */
#ifndef FI_DATASET_H
#define FI_DATASET_H

#include "augment.h"
#include "featinv.h"
#include "prefetch.h"

#include <pthread.h>
#include <sys/types.h>

/* Why an image cannot be used. */
typedef struct fi_dataset_fault {
    featinv_status status;
    bool reported;
    char text[]; /* one line that names the file */
} fi_dataset_fault;

/* What one worker decodes into; grows to its largest picture. */
typedef struct fi_dataset_scratch {
    uint8_t *pixels;
    size_t capacity;
} fi_dataset_scratch;

struct featinv_dataset {
    featinv_dataset_options options;
    fi_augment augment;
    pid_t owner; /* threads do not live on in a child */
    char **paths;
    int64_t count;

    pthread_mutex_t lock;      /* guards faults and fault_count while threads work */
    fi_dataset_fault **faults; /* (count), NULL: none known. Never freed or changed while open */
    int64_t fault_count;
    fi_dataset_fault **reports; /* of them, those that delivered batches met; reader's */
    int64_t *report_indices;
    int64_t report_count, report_capacity;

    /* Slots of the ring: (prefetch, batch, ...). */
    uint8_t *images, *views;
    size_t image_bytes, view_bytes; /* of one place */
    int64_t *indices;               /* of the image that fills a place */
    int64_t *passed;                /* bad images that it stands in for */
    fi_dataset_scratch *scratch;    /* (threads) */
    fi_prefetch *prefetch;
};

/* The image that belongs to a place of the endless sequence of epochs, and the one that stands in
 * for it after `passed` bad ones: the next in the order of the same epoch, around its end. */
int64_t fi_dataset_index(const featinv_dataset *d, int64_t position, int64_t passed);

/* A fi_prefetch_task over a featinv_dataset. */
featinv_status fi_dataset_make_place(void *dataset, int32_t worker, int32_t slot, int64_t batch,
                                     int32_t place);

#endif
