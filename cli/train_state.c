/* The training's folder of state: who may use it, its checkpoints, the trained bundle. */
#include "job.h"
#include "train.h"
#include "writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)kind, (void)place;
    return remove(path);
}

void train_remove_tree(const char *path) {
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static bool has(const train *t, const char *name) {
    char *path = cli_path(t->state, name);
    bool found = path && access(path, F_OK) == 0;
    free(path);
    return found;
}

static bool is_empty_folder(const char *path) {
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (struct dirent *entry; dir && empty && (entry = readdir(dir));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (dir)
        (void)closedir(dir);
    return empty;
}

/* ---------------------------------------------------------------- before --------------------- */

/* What the end of the training would refuse is refused before its beginning. */
static int check_output(const train *t) {
    struct stat info;
    char manifest[PATH_MAX];
    if (lstat(t->output, &info) != 0)
        return CLI_DONE;
    (void)snprintf(manifest, sizeof manifest, "%s/manifest.json", t->output);
    if (!S_ISDIR(info.st_mode) || access(manifest, F_OK) != 0)
        return cli_fail(CLI_FAILED, "%s: exists and is not a bundle", t->output);
    if (!t->values->force)
        return cli_fail(CLI_FAILED, "%s: exists, --force replaces it", t->output);
    return CLI_DONE;
}

int train_state_check(train *t) {
    int code = t->rank ? CLI_DONE : check_output(t);
    if (code || t->rank)
        return code;
    struct stat info;
    if (stat(t->state, &info) != 0 || is_empty_folder(t->state))
        return CLI_DONE;
    if (!S_ISDIR(info.st_mode))
        return cli_fail(CLI_FAILED, "%s: is a file, not a folder", t->state);
    if (!t->values->resume)
        return cli_fail(CLI_FAILED,
                        "%s: holds a training: --resume goes on with it, deleting the folder "
                        "gives it up",
                        t->state);
    return CLI_DONE;
}

static bool same_place(const char *a, const char *b) {
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* The bundle's own base, or NULL: fresh memory. */
static char *base_path(const train *t) {
    json_t *manifest = json_loads(featinv_model_manifest(t->opened.model), 0, NULL);
    const char *base =
        json_string_value(json_object_get(json_object_get(manifest, "base"), "path"));
    char *path = !base ? NULL : *base == '/' ? strdup(base) : cli_path(t->opened.info.path, base);
    json_decref(manifest);
    return path;
}

int train_state_check_source(train *t) {
    char *base = base_path(t);
    bool used = same_place(t->output, t->opened.info.path) || (base && same_place(t->output, base));
    free(base);
    return used ? cli_fail(CLI_FAILED, "%s: is in use by this training", t->output) : CLI_DONE;
}

/* ---------------------------------------------------------------- opening -------------------- */

/* The lock ends with the process, however that ends; the file then still names it. Returns that
 * earlier process's number, 0 where there was none or no file system that locks, -1 after an
 * error. */
static long lock(train *t, int *code) {
    char *path = cli_path(t->state, "lock"), text[24] = "";
    long earlier = 0;
    *code = path ? CLI_DONE : cli_fail_memory();
    if (path)
        t->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (path && t->lock < 0)
        *code = cli_fail(CLI_FAILED, "%s: cannot be written (%s)", path, strerror(errno));
    bool locked = !*code && flock(t->lock, LOCK_EX | LOCK_NB) == 0;
    if (!*code && !locked && errno == EWOULDBLOCK)
        *code = cli_fail(CLI_FAILED, "%s: another training is running in this folder", t->state);
    if (!*code) {
        if (locked && pread(t->lock, text, sizeof text - 1, 0) > 0)
            earlier = strtol(text, NULL, 10);
        (void)snprintf(text, sizeof text, "%-20ld\n", (long)getpid());
        if (pwrite(t->lock, text, strlen(text), 0) < 0)
            *code = cli_fail(CLI_FAILED, "%s: cannot be written (%s)", path, strerror(errno));
    }
    free(path);
    return *code ? -1 : earlier;
}

/* Removes what a folder holds of the name PREFIX...tmp: what the library writes and has not yet
 * given its name. */
static void sweep(const char *folder, const char *prefix) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        bool temporary = strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && length > 4 &&
                         strcmp(entry->d_name + length - 4, ".tmp") == 0;
        char *path = temporary ? cli_path(folder, entry->d_name) : NULL;
        if (path)
            train_remove_tree(path);
        free(path);
    }
    if (dir)
        (void)closedir(dir);
}

/* Removes what killed runs left half written: anything in the state folder, which is this
 * training's alone, and beside the output what bears the number of the run before. */
static void tidy(const train *t, long earlier) {
    char prefix[48], *validation = cli_path(t->state, "validation");
    char *parent = strdup(t->output), *slash = parent ? strrchr(parent, '/') : NULL;
    sweep(t->state, ".featinv-");
    if (validation)
        train_remove_tree(validation);
    (void)snprintf(prefix, sizeof prefix, ".featinv-%ld-", earlier);
    if (slash)
        slash[slash == parent] = '\0';
    bool gone = earlier > 0 && kill((pid_t)earlier, 0) != 0 && errno == ESRCH;
    if (gone && parent)
        sweep(slash ? parent : ".", prefix);
    free(validation);
    free(parent);
}

static int move(const train *t, const char *from, const char *to) {
    char *source = cli_path(t->state, from), *target = cli_path(t->state, to);
    int code = source && target ? CLI_DONE : cli_fail_memory();
    if (!code && rename(source, target) != 0 && errno != ENOENT)
        code = cli_fail(CLI_FAILED, "%s: cannot be renamed (%s)", source, strerror(errno));
    free(source);
    free(target);
    return code;
}

/* The next checkpoint becomes the first one. Killed at any moment, one of the three is whole. */
static int rotate(const train *t) {
    int code = has(t, TRAIN_CHECKPOINT) ? move(t, TRAIN_CHECKPOINT, TRAIN_PREVIOUS) : CLI_DONE;
    return code ? code : move(t, TRAIN_NEXT, TRAIN_CHECKPOINT);
}

static featinv_status load(train *t, const char *name) {
    char *path = cli_path(t->state, name);
    featinv_status status = path ? featinv_trainer_resume(t->trainer, path) : FEATINV_ERROR_MEMORY;
    free(path);
    if (!status)
        t->saved = featinv_trainer_steps(t->trainer);
    return status;
}

/* The newest checkpoint that is whole. Another training's is an error: the folder is not this
 * one's. */
static int load_checkpoint(train *t) {
    int code = has(t, TRAIN_NEXT) ? rotate(t) : CLI_DONE;
    if (code || (!has(t, TRAIN_CHECKPOINT) && !has(t, TRAIN_PREVIOUS)))
        return code;
    featinv_status status = load(t, TRAIN_CHECKPOINT);
    if (!status)
        return CLI_DONE;
    if (status == FEATINV_ERROR_UNSUPPORTED || status == FEATINV_ERROR_MEMORY)
        return cli_fail_status(status, t->state);
    if (!has(t, TRAIN_PREVIOUS))
        return cli_fail(cli_code(status), "%s; delete %s to start anew", featinv_last_error(),
                        t->state);
    char *text = strdup(featinv_last_error());
    status = load(t, TRAIN_PREVIOUS);
    if (status)
        code = cli_fail(cli_code(status),
                        "%s; nor can the one before be used: %s; delete %s to start anew",
                        text ? text : t->state, featinv_last_error(), t->state);
    else /* kept aside, or it would take the place of the good one */
        code = move(t, TRAIN_CHECKPOINT, TRAIN_DAMAGED);
    if (!code)
        (void)cli_fail(CLI_DONE, "%s; going on from step %lld of %s", text ? text : t->state,
                       (long long)t->saved, TRAIN_PREVIOUS);
    free(text);
    return code;
}

int train_state_open(train *t) {
    int code = cli_folder_make(t->state, &t->made_from);
    long earlier = code ? -1 : lock(t, &code);
    if (code)
        return code;
    tidy(t, earlier);
    if (has(t, TRAIN_CHECKPOINT) || has(t, TRAIN_PREVIOUS) || has(t, TRAIN_NEXT))
        code = train_log_check(t);
    if (!code)
        code = load_checkpoint(t);
    t->started = train_step_count(t);
    if (!code && t->started > t->steps)
        code = cli_fail(CLI_USAGE, "%s: is at step %lld already, beyond the %lld asked for",
                        t->state, (long long)t->started, (long long)t->steps);
    return code ? code : train_log_open(t, t->saved);
}

/* The log first: it holds every step of the checkpoint. */
static int sync_log(const train *t) {
    bool good =
        fflush(t->log) == 0 && (fsync(fileno(t->log)) == 0 || errno == EINVAL || errno == ENOTSUP);
    return good ? CLI_DONE
                : cli_fail(CLI_FAILED, "%s/%s: cannot be written (%s)", t->state, TRAIN_LOG,
                           strerror(errno));
}

int train_state_save(train *t) {
    if (t->saved == train_step_count(t))
        return CLI_DONE;
    char *path = cli_path(t->state, TRAIN_NEXT);
    int code = path ? sync_log(t) : cli_fail_memory();
    featinv_status status = code ? FEATINV_OK : featinv_trainer_save(t->trainer, path);
    if (status && t->saved >= 0)
        code = cli_fail(cli_code(status), "%s; the checkpoint of step %lld stays",
                        featinv_last_error(), (long long)t->saved);
    else if (status)
        code = cli_fail_status(status, path);
    if (!code)
        code = rotate(t);
    if (!code)
        t->saved = train_step_count(t);
    free(path);
    return code;
}

/* A run that came to nothing leaves no folder that the next one would have to remove. */
void train_state_close(train *t) {
    if (t->log)
        (void)fclose(t->log);
    t->log = NULL;
    if (t->lock >= 0 && t->made_from && t->saved < 0 && train_step_count(t) == 0) {
        train_remove_tree(t->state);
        cli_folder_unmake(t->state, t->made_from);
    }
    if (t->lock >= 0)
        (void)close(t->lock);
    t->lock = -1;
}

/* ---------------------------------------------------------------- export --------------------- */

featinv_status train_export(train *t, const char *path, const char *name, bool force) {
    featinv_trainer_export_options o;
    int64_t channels = t->opened.info.channels;
    const featinv_tensor mean =
        featinv_tensor_view(t->mean, FEATINV_DTYPE_F32, /*ndim=*/1, &channels);
    (void)featinv_trainer_export_options_init(&o, sizeof o);
    o.name = name;
    o.feature_mean = t->mean ? &mean : NULL;
    o.dtype = FEATINV_DTYPE_F16;
    o.force = force;
    featinv_status status = featinv_trainer_export(t->trainer, path, &o);
    if (status == FEATINV_ERROR_VALUE) {
        o.dtype = FEATINV_DTYPE_F32;
        status = featinv_trainer_export(t->trainer, path, &o);
    }
    return status;
}
