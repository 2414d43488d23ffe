/* Processes that a launcher started together: mpirun, or srun --mpi=pmix. */
#include "cli.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 100000 }; /* as --shard */

static bool read_number(int32_t *out, const char *name, long low, long high) {
    const char *text = getenv(name);
    char *end = NULL;
    long value = text && isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
    if (!end || *end || value < low || value > high)
        return false;
    *out = (int32_t)value;
    return true;
}

/* PMIX_RANK tells a task of srun from the batch script, which has SLURM_NTASKS, too. */
bool cli_launched(int32_t *rank, int32_t *size) {
    static const struct {
        const char *rank, *size;
    } launchers[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                     {"PMIX_RANK", "SLURM_NTASKS"}};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (read_number(size, launchers[i].size, 2, MOST_RANKS) &&
            read_number(rank, launchers[i].rank, 0, *size - 1))
            return true;
    *rank = 0;
    *size = 1;
    return false;
}

static bool has_shards(const cli_verb *verb) {
    for (const cli_option *const *table = verb->tables; *table; table++)
        for (const cli_option *o = *table; o->name; o++)
            if (o->kind == CLI_SHARD)
                return true;
    return false;
}

/* "maps.npy" becomes "maps-0-of-2.npy". */
static int name_part(cli_values *v) {
    static char path[PATH_MAX];
    const char *slash = strrchr(v->output, '/'), *dot = strrchr(v->output, '.');
    size_t stem = dot && (!slash || dot > slash) ? (size_t)(dot - v->output) : strlen(v->output);
    int length = snprintf(path, sizeof path, "%.*s-%d-of-%d%s", (int)stem, v->output, v->shard,
                          v->shards, v->output + stem);
    if (length < 0 || (size_t)length >= sizeof path)
        return cli_fail(CLI_USAGE, "-o: the name is too long");
    v->output = path;
    return CLI_DONE;
}

/* Rank r of N is --shard r/N. */
int cli_launch_shard(cli_values *v, const cli_verb *verb) {
    int32_t rank, size;
    if (!cli_launched(&rank, &size) || !has_shards(verb))
        return CLI_DONE;
    if (v->shards)
        return cli_fail(CLI_USAGE,
                        "--shard: the %d processes that were started together are parts by "
                        "themselves",
                        size);
    const struct {
        const char *option, *path;
    } files[] = {
        {"--latents-out", v->latents_out}, {"--images-out", v->images_out}, {"--trace", v->trace}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i].path)
            return cli_fail(CLI_USAGE, "%s %s: is one file, and %d processes would write it",
                            files[i].option, files[i].path, size);
    v->shard = rank;
    v->shards = size;
    return verb == &cli_extract && v->output ? name_part(v) : CLI_DONE;
}
