/* What mix and compose have in common: two sides, maps made from them, pictures of those. */
#ifndef CLI_PAIR_H
#define CLI_PAIR_H

#include "canvas.h"
#include "draw.h"
#include "side.h"

typedef struct cli_pair {
    cli_job job;
    cli_side sides[2]; /* A, B */
    int64_t map[3];
    float *maps;   /* (count, C, H, W): what is drawn; the job's while it draws */
    int64_t count; /* of maps */
    cli_drawn drawn;
    cli_canvas canvas;
} cli_pair;

/* The verb's own part, on the struct that begins with its pair. */
typedef struct cli_pair_verb {
    int (*make)(cli_pair *pair);              /* sets maps and count */
    int (*write)(cli_pair *pair, bool whole); /* whole: all pictures are drawn */
} cli_pair_verb;

/* Two arguments and an output folder; pair->job.values and verb are set. */
int cli_pair_check(const cli_pair *pair);
/* From opening the bundle to the written results. Of an interrupted run, what is drawn. */
int cli_pair_run(cli_pair *pair, const cli_pair_verb *verb);
void cli_pair_free(cli_pair *pair);

#endif
