#include "pair.h"

#include <stdlib.h>

int cli_pair_check(const cli_pair *pair) {
    const cli_values *v = pair->job.values;
    if (v->argument_count != 2)
        return cli_fail(CLI_USAGE, "%s: takes A and B, images or map files, not %d arguments",
                        pair->job.verb, v->argument_count);
    if (!v->output)
        return cli_fail(CLI_USAGE, "%s: -o DIR is missing", pair->job.verb);
    return CLI_DONE;
}

static int read_sides(cli_pair *p) {
    const featinv_model_details *info = &p->job.opened.info;
    int code = cli_draw_begin(&p->job);
    p->map[0] = info->channels;
    p->map[1] = info->height;
    p->map[2] = info->width;
    p->canvas =
        (cli_canvas){p->job.values->output, (int32_t)p->job.image[1], (int32_t)p->job.image[0]};
    cli_watch(p->job.opened.session);
    return code ? code : cli_sides_read(p->sides, &p->job.opened, p->job.values, p->job.verb);
}

static int draw_and_write(cli_pair *p, const cli_pair_verb *verb, size_t made_from) {
    int code = cli_draw(&p->drawn, &p->job, p->maps, p->count);
    bool some = p->drawn.done && (!code || code == CLI_INTERRUPTED);
    int written = some ? verb->write(p, p->drawn.done == p->drawn.lanes) : CLI_DONE;
    if (code == CLI_INTERRUPTED)
        (void)cli_fail(code, "interrupted after %lld of %lld pictures", (long long)p->drawn.done,
                       (long long)p->drawn.lanes);
    if (code || written)
        cli_folder_unmake(p->job.values->output, made_from);
    return written ? written : code;
}

int cli_pair_run(cli_pair *pair, const cli_pair_verb *verb) {
    size_t made_from;
    int code = cli_folder_check(pair->job.values);
    if (!code)
        code = cli_open(&pair->job.opened, pair->job.values);
    if (!code)
        code = read_sides(pair);
    if (!code)
        code = verb->make(pair);
    if (!code)
        code = cli_folder_make(pair->job.values->output, &made_from);
    if (!code)
        return draw_and_write(pair, verb, made_from);
    free(pair->maps);
    pair->maps = NULL;
    return code;
}

void cli_pair_free(cli_pair *pair) {
    cli_drawn_free(&pair->drawn);
    cli_sides_free(pair->sides);
    cli_job_free(&pair->job);
}
