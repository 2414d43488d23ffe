/* What a report's parts share: items are JSON objects exactly as results.json holds them. */
#ifndef FI_REPORT_H
#define FI_REPORT_H

#include "featinv.h"

#include <jansson.h>

typedef struct fi_page {
    const char *directory; /* where the pictures lie */
    const char *title;
    const json_t *items;   /* array, those of one input beside each other */
    const json_t *summary; /* object */
} fi_page;

/* Writes DIR/report.html. Errors: WRITE, MEMORY. */
featinv_status fi_page_write(const char *path, const fi_page *page);

#endif
