/* index.html of a verb: one page that needs nothing but itself, in the look of report.html. Text
 * that is given is escaped; calls after a failure do nothing, and cli_page_close reports it. */
#ifndef CLI_PAGE_H
#define CLI_PAGE_H

#include "writer.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cli_page {
    cli_writer writer;
    FILE *stream; /* NULL: failed, or closed */
    const char *folder;
    int code;
} cli_page;

/* FOLDER/index.html with a heading and a paragraph on what is seen. */
void cli_page_open(cli_page *page, const char *folder, const char *title, const char *about);
/* The footer: version and bundle (NULL: none). Returns an exit code; failed: throws the page
 * away. */
int cli_page_close(cli_page *page, const char *bundle_sha256, bool failed);

void cli_page_tiles(cli_page *page); /* begins a row of figures */
void cli_page_tile(cli_page *page, const char *value, const char *label);
void cli_page_tiles_end(cli_page *page);

/* A card with a heading and, where not NULL, a paragraph; rows and tables belong into one. */
void cli_page_card(cli_page *page, const char *heading, const char *text);
void cli_page_card_end(cli_page *page);
void cli_page_text(cli_page *page, const char *text);
void cli_page_row(cli_page *page, const char *label); /* label NULL: none */
void cli_page_row_end(cli_page *page);

/* FOLDER/name.png inlined; head in bold, lines below it separated by newlines, either may be NULL.
 * bar: a share in [-1, 1] drawn under the picture, signed ones from its middle; NaN: none. */
void cli_page_picture(cli_page *page, const char *name, const char *head, const char *lines,
                      double bar, bool is_signed);

/* A table of numbers: rows by columns, row and column names as given. strength (rows x columns, in
 * [0, 1]) tints the cells, or NULL. */
typedef struct cli_table {
    const char *corner;
    const char *const *row_names, *const *column_names;
    const char *const *cells; /* (rows, columns) texts */
    const double *strength;
    size_t rows, columns;
} cli_table;
void cli_page_table(cli_page *page, const cli_table *table);

/* A curve y over x with both axes named; points that are NaN are left out. */
typedef struct cli_curve {
    const char *x_name, *y_name;
    const double *x, *y;
    size_t count;
    double y_low, y_high;
    double mark; /* a vertical line at this x; NaN: none */
} cli_curve;
void cli_page_curve(cli_page *page, const cli_curve *curve);

void cli_page_errors(cli_page *page, const json_t *items); /* those with `error` */

#endif
