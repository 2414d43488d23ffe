/* The output folder while an evaluation is made: settings.json and one file a part. */
#include "evaluate.h"

#include "../arrays.h"
#include "../job.h"
#include "../writer.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- settings ------------------- */

static const char settings_file[] = "settings.json", format_key[] = "format";
static const char hash_array[] = "settings"; /* of a part's file: hash of what it was made with */

/* What is there, NULL where it is nothing of an evaluation. */
static json_t *load_settings(const evaluate *e) {
    char *path = cli_path(e->values->output, settings_file);
    json_t *settings = path ? json_load_file(path, 0, NULL) : NULL;
    const json_t *format = json_object_get(settings, format_key);
    if (!json_equal(format, json_object_get(e->settings, format_key))) {
        json_decref(settings);
        settings = NULL;
    }
    free(path);
    return settings;
}

/* In one line, short of what is too long to be read. */
static int refuse(const evaluate *e, const char *key, const json_t *old, const json_t *wanted) {
    const char *folder = e->values->output;
    char *was = json_dumps(old, JSON_ENCODE_ANY | JSON_COMPACT);
    char *is = json_dumps(wanted, JSON_ENCODE_ANY | JSON_COMPACT);
    int code;
    if (strcmp(key, "images_hash") == 0 || strcmp(key, "ood_hash") == 0)
        code = cli_fail(CLI_USAGE,
                        "%s: was begun with other images: names, classes, sizes or times of files "
                        "in %s differ",
                        folder, *key == 'o' ? e->values->ood : e->values->data);
    else if (was && is && strlen(was) + strlen(is) < 200)
        code = cli_fail(CLI_USAGE, "%s: was begun with other settings: %s was %s, not %s", folder,
                        key, was, is);
    else
        code = cli_fail(CLI_USAGE, "%s: was begun with other settings: %s differs", folder, key);
    free(was);
    free(is);
    return code;
}

/* The first setting that is not as in `old`, NULL: all are. */
static const char *find_difference(const evaluate *e, const json_t *old) {
    const char *key;
    json_t *wanted;
    json_object_foreach(e->settings, key, wanted) {
        const json_t *was = json_object_get(old, key);
        if (!was || !json_equal(was, wanted))
            return key;
    }
    return NULL;
}

int evaluate_store_check(const evaluate *e) {
    json_t *now = load_settings(e);
    bool same = now && !find_difference(e, now);
    json_decref(now);
    return same ? CLI_DONE
                : cli_fail(CLI_FAILED,
                           "%s/%s: is no longer of this evaluation: another one was begun in the "
                           "folder, take one for each",
                           e->values->output, settings_file);
}

/* ---------------------------------------------------------------- files ---------------------- */

/* Fresh memory. */
static char *part_path(const evaluate *e, int64_t part) {
    const evaluate_task *task = evaluate_task_of(e, part);
    char name[96];
    (void)snprintf(name, sizeof name, "parts/%s-%06lld.npz", task->name,
                   (long long)(part - task->first_part));
    return cli_path(e->values->output, name);
}

/* Parts of other settings, and what is damaged, are not there. */
bool evaluate_part_is_there(const evaluate *e, int64_t part) {
    char hash[EVALUATE_HASH], *path = part_path(e, part);
    featinv_array_info info = {.struct_size = sizeof info};
    bool there = path && featinv_array_read(hash, sizeof hash, &info, path, hash_array,
                                            FEATINV_DTYPE_U8) == FEATINV_OK;
    there = there && info.ndim == 2 && info.shape[0] == 1 && info.shape[1] == EVALUATE_HASH &&
            memcmp(hash, e->settings_hash, EVALUATE_HASH) == 0;
    free(path);
    return there;
}

int64_t evaluate_parts_there(const evaluate *e) {
    int64_t count = 0;
    for (int64_t part = 0; part < e->part_count; part++)
        count += evaluate_part_is_there(e, part);
    return count;
}

static int make_folder(const char *path) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return CLI_DONE;
    return cli_fail(CLI_FAILED, "%s: cannot be made a folder (%s)", path, strerror(errno));
}

static bool is_part_name(const char *name) {
    size_t length = strlen(name);
    return length > 4 && name[0] != '.' && strcmp(name + length - 4, ".npz") == 0;
}

/* What a killed process was writing. */
static bool is_torn_name(const char *name) {
    return strncmp(name, ".featinv", 8) == 0;
}

static bool has_parts(const char *folder) {
    DIR *dir = opendir(folder);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));)
        found = is_part_name(entry->d_name);
    if (dir)
        (void)closedir(dir);
    return found;
}

/* What a killed process has left and, where wanted, the parts of the evaluation that was there. */
static int clear_parts(const char *folder, bool whole_ones) {
    DIR *dir = opendir(folder);
    int code = CLI_DONE;
    for (struct dirent *entry; dir && !code && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        bool gone = is_torn_name(name) || (whole_ones && is_part_name(name));
        char *path = gone ? cli_path(folder, name) : NULL;
        if (path && unlink(path) != 0 && errno != ENOENT)
            code = cli_fail(CLI_FAILED, "%s: cannot be removed (%s)", path, strerror(errno));
        free(path);
    }
    if (dir)
        (void)closedir(dir);
    return code;
}

/* Whether what is in the folder may be gone on from or replaced. old NULL: nothing is known. */
static int check_begun(const evaluate *e, const json_t *old, const char *parts) {
    const cli_values *v = e->values;
    if (v->resume || v->shards > 0) {
        const char *key = old ? find_difference(e, old) : NULL;
        return key ? refuse(e, key, json_object_get(old, key), json_object_get(e->settings, key))
                   : CLI_DONE;
    }
    if (!v->force && has_parts(parts))
        return cli_fail(CLI_USAGE,
                        "%s: holds finished parts of an evaluation: give --resume to go on with "
                        "them or --force to remove them",
                        v->output);
    return CLI_DONE;
}

int evaluate_store_open(const evaluate *e) {
    const cli_values *v = e->values;
    size_t made_from;
    int code = cli_folder_make(v->output, &made_from);
    if (code)
        return code;
    char *parts = cli_path(v->output, "parts"), *pictures = cli_path(v->output, "pictures");
    json_t *old = load_settings(e);
    bool goes_on = old && (v->resume || v->shards > 0);
    code = parts && pictures ? CLI_DONE : cli_fail_memory();
    if (!code)
        code = check_begun(e, old, parts);
    if (!code)
        code = make_folder(parts);
    if (!code && e->pictures > 0)
        code = make_folder(pictures);
    if (!code && !goes_on)
        code = cli_write_json(v->output, settings_file, e->settings);
    if (!code && !v->shards) /* others may be writing beside a shard */
        code = clear_parts(parts, v->force);
    json_decref(old);
    free(parts);
    free(pictures);
    if (code)
        cli_folder_unmake(v->output, made_from);
    return code;
}

/* ---------------------------------------------------------------- arrays --------------------- */

enum { MOST_ARRAYS = 3 * EVALUATE_MOST_SLOTS + 3, MOST_NAME = 24 };

typedef struct arrays {
    featinv_tensor tensors[MOST_ARRAYS];
    int64_t shapes[MOST_ARRAYS][2];
    char texts[MOST_ARRAYS][MOST_NAME];
    const char *names[MOST_ARRAYS];
    int32_t count;
} arrays;

/* slot -1: not of a slot; data NULL: nothing is added. */
static void add(arrays *a, const char *name, int32_t slot, void *data, featinv_dtype dtype,
                int64_t count, int64_t each) {
    if (!data)
        return;
    int32_t i = a->count++;
    a->shapes[i][0] = count;
    a->shapes[i][1] = each;
    a->tensors[i] = featinv_tensor_view(data, dtype, 2, a->shapes[i]);
    if (slot < 0)
        (void)snprintf(a->texts[i], MOST_NAME, "%s", name);
    else
        (void)snprintf(a->texts[i], MOST_NAME, "%s-%d", name, slot);
    a->names[i] = a->texts[i];
}

/* Rows `first` and on of the block as the arrays of a part's file. */
static void list_arrays(arrays *a, const evaluate *e, const evaluate_task *task,
                        const evaluate_block *block, int64_t first, int64_t count) {
    *a = (arrays){.count = 0};
    for (int32_t s = 0; s < task->slot_count; s++) {
        const evaluate_network *n = &e->networks[task->slots[s].network];
        double *positions = block->positions[s];
        float *rows = block->rows[s];
        add(a, "figures", s, block->figures[s] + first * EVALUATE_FIGURES, FEATINV_DTYPE_F64, count,
            EVALUATE_FIGURES);
        add(a, "positions", s, positions ? positions + first * n->positions : NULL,
            FEATINV_DTYPE_F64, count, n->positions);
        add(a, "rows", s, rows ? rows + first * n->channels : NULL, FEATINV_DTYPE_F32, count,
            n->channels);
    }
    add(a, "gradient", -1, block->gradient ? block->gradient + 2 * first : NULL, FEATINV_DTYPE_F64,
        count, 2);
}

int evaluate_part_write(const evaluate *e, int64_t part, const evaluate_block *block) {
    const evaluate_task *task = evaluate_task_of(e, part);
    char *path = part_path(e, part), *problems = json_dumps(block->problems, JSON_COMPACT);
    int code = path && problems ? evaluate_store_check(e) : cli_fail_memory();
    char hash[EVALUATE_HASH];
    arrays a;
    if (!code) {
        memcpy(hash, e->settings_hash, sizeof hash);
        list_arrays(&a, e, task, block, 0, block->count);
        add(&a, hash_array, -1, hash, FEATINV_DTYPE_U8, 1, EVALUATE_HASH);
        add(&a, "problems", -1, problems, FEATINV_DTYPE_U8, 1, (int64_t)strlen(problems));
        featinv_status status = featinv_array_write(path, a.tensors, a.names, a.count, 0);
        if (status) /* it may be that the file was cleared away by another evaluation */
            code = evaluate_store_check(e);
        if (status && !code)
            code = cli_fail_status(status, path);
    }
    free(path);
    free(problems);
    return code;
}

static int copy_array(const char *path, const char *name, const featinv_tensor *to) {
    featinv_dtype dtype = to->dtype_bits == 64 ? FEATINV_DTYPE_F64 : FEATINV_DTYPE_F32;
    cli_array from = {0};
    int code = cli_array_read(&from, path, name, dtype);
    if (!code)
        code = cli_array_check(&from, path, to->shape, 2, name);
    if (!code)
        memcpy(to->data, from.data,
               (size_t)(to->shape[0] * to->shape[1]) * (size_t)(to->dtype_bits / 8));
    cli_array_free(&from);
    return code;
}

static int read_problems(json_t *problems, const char *path) {
    const int64_t shape[2] = {1, -1};
    cli_array text = {0};
    int code = cli_array_read(&text, path, "problems", FEATINV_DTYPE_U8);
    if (!code)
        code = cli_array_check(&text, path, shape, 2, "problems");
    if (!code) {
        json_t *list = json_loadb(text.data, (size_t)text.info.shape[1], 0, NULL);
        if (!json_is_array(list))
            code = cli_fail(CLI_INPUT, "%s: is damaged", path);
        else if (json_array_extend(problems, list))
            code = cli_fail_memory();
        json_decref(list);
    }
    cli_array_free(&text);
    return code;
}

int evaluate_task_read(evaluate_block *out, const evaluate *e, const evaluate_task *task) {
    arrays a;
    int code = evaluate_block_make(out, e, task, task->count);
    for (int64_t p = 0; !code && p < task->part_count; p++) {
        int64_t first = p * e->batch, left = task->count - first;
        char *path = part_path(e, task->first_part + p);
        code = path ? CLI_DONE : cli_fail_memory();
        list_arrays(&a, e, task, out, first, left < e->batch ? left : e->batch);
        for (int32_t i = 0; !code && i < a.count; i++)
            code = copy_array(path, a.names[i], &a.tensors[i]);
        if (!code)
            code = read_problems(out->problems, path);
        free(path);
    }
    if (!code && task->kind == EVALUATE_CLASS)
        code = evaluate_block_reorder(out, e, task, e->set.by_class);
    if (code)
        evaluate_block_free(out);
    return code;
}
