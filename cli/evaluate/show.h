/* Parts of an evaluation's page. Each writes nothing where `tables` has nothing for it, and none
 * may be called on a page that failed to open. */
#ifndef CLI_EVALUATE_SHOW_H
#define CLI_EVALUATE_SHOW_H

#include "present.h"

/* gallery.c: originals beside what is drawn from them; series of drawings whose `what` begins with
 * `start`, as rows below a paragraph; spatial and pooled drawings side by side. */
void evaluation_put_pictures(cli_page *page, const json_t *tables);
void evaluation_put_series(cli_page *page, const json_t *tables, const char *start,
                           const char *heading);
void evaluation_put_pairs(cli_page *page, const json_t *tables);

/* curves.c: figures over guidance scale and over weight, and shares between floor and ceiling. */
void evaluation_put_sweep(cli_page *page, const json_t *tables);
void evaluation_put_mix(cli_page *page, const json_t *tables);
void evaluation_put_shares(cli_page *page, const json_t *tables);

#endif
