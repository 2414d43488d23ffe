/* The images of an evaluation: which there are, their classes, and those that are taken. */
#include "evaluate.h"

#include "../arrays.h"
#include "../writer.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---------------------------------------------------------------- files ---------------------- */

enum { MOST_DEPTH = 32 };

typedef struct listing {
    char **folders;
    size_t count, capacity;
    struct stat skipped;
    bool skips;
} listing;

static int note_folder(listing *l, const char *path) {
    if (l->count == l->capacity) {
        size_t grown = l->capacity ? 2 * l->capacity : 64;
        char **folders = realloc(l->folders, grown * sizeof *folders);
        if (!folders)
            return cli_fail_memory();
        l->folders = folders;
        l->capacity = grown;
    }
    l->folders[l->count] = strdup(path);
    return l->folders[l->count++] ? CLI_DONE : cli_fail_memory();
}

/* A folder and those that it lies in. */
typedef struct place {
    struct stat info;
    const struct place *above;
    int depth;
} place;

static bool is_same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Links are followed, but not in circles. */
static bool is_inside_itself(const place *p) {
    for (const place *above = p->above; above; above = above->above)
        if (is_same(&above->info, &p->info))
            return true;
    return false;
}

static bool has_format(const char *folder, const char *name, const char *format) {
    char *path = cli_path(folder, name);
    json_t *content = path ? json_load_file(path, 0, NULL) : NULL;
    const char *found = json_string_value(json_object_get(content, "format"));
    bool has = found && strcmp(found, format) == 0;
    json_decref(content);
    free(path);
    return has;
}

/* Whether an evaluation has its results there: its pictures are no images to evaluate. */
static bool is_evaluation(const char *folder) {
    return has_format(folder, "settings.json", "featinv-evaluation-settings") ||
           has_format(folder, "tables.json", "featinv-evaluation");
}

/* The folder and those below it; hidden ones, evaluations and the skipped one aside. */
static int list_folders(listing *l, const char *path, const place *above) {
    place here = {.above = above, .depth = above ? above->depth + 1 : 0};
    if (stat(path, &here.info) != 0 || !S_ISDIR(here.info.st_mode) || here.depth > MOST_DEPTH ||
        is_inside_itself(&here) || (l->skips && is_same(&here.info, &l->skipped)) ||
        (above && is_evaluation(path)))
        return CLI_DONE;
    DIR *dir = opendir(path);
    if (!dir)
        return cli_fail(CLI_INPUT, "%s: cannot be read (%s)", path, strerror(errno));
    int code = note_folder(l, path);
    for (struct dirent *entry; !code && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || entry->d_type == DT_REG)
            continue;
        char *below = cli_path(path, entry->d_name);
        code = below ? list_folders(l, below, &here) : cli_fail_memory();
        free(below);
    }
    (void)closedir(dir);
    return code;
}

static int compare_texts(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

int evaluate_files(cli_inputs *out, const char *folder, const char *skipped) {
    listing l = {.skips = false};
    l.skips = skipped && stat(skipped, &l.skipped) == 0;
    int code = list_folders(&l, folder, NULL);
    if (!code && l.count > INT32_MAX)
        code = cli_fail(CLI_INPUT, "%s: too many folders", folder);
    if (!code && l.count) {
        qsort(l.folders, l.count, sizeof *l.folders, compare_texts);
        code = cli_inputs_list(out, (const char *const *)l.folders, (int)l.count);
    }
    int64_t kept = 0;
    for (int64_t i = 0; !code && i < out->count; i++) { /* others are folders without images */
        cli_input item = out->items[i];
        if (item.error) {
            free(item.path);
            free(item.name);
            free(item.error);
        } else {
            out->items[kept++] = item;
        }
    }
    if (!code)
        out->count = kept;
    for (size_t i = 0; i < l.count; i++)
        free(l.folders[i]);
    free(l.folders);
    return code;
}

/* ---------------------------------------------------------------- hashes --------------------- */

/* Every bit of the hash in every bit of the key (the finaliser of SplitMix64). */
static uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void set_keys(evaluate_image *image, uint64_t seed) {
    uint64_t hash;
    cli_hash_start(&hash);
    cli_hash_add(&hash, image->id, strlen(image->id));
    image->key = mixed(hash ^ mixed(seed + 1));
    image->noise = seed + mixed(hash);
}

/* ---------------------------------------------------------------- candidates ----------------- */

typedef struct candidates {
    evaluate_image *images;
    int64_t count, capacity;
    char **classes;
    int32_t class_count, class_capacity;
    json_t *numbers; /* class name → number */
} candidates;

static void candidates_free(candidates *c) {
    for (int64_t i = 0; i < c->count; i++) {
        free(c->images[i].id);
        free(c->images[i].path);
    }
    for (int32_t i = 0; i < c->class_count; i++)
        free(c->classes[i]);
    free(c->images);
    free(c->classes);
    json_decref(c->numbers);
    *c = (candidates){0};
}

/* Number of a class, which is added where it is new; -1: no memory. */
static int32_t class_number(candidates *c, const char *name) {
    const json_t *known = json_object_get(c->numbers, name);
    if (known)
        return (int32_t)json_integer_value(known);
    if (c->class_count == c->class_capacity) {
        int32_t grown = c->class_capacity ? 2 * c->class_capacity : 64;
        char **classes = realloc(c->classes, (size_t)grown * sizeof *classes);
        if (!classes)
            return -1;
        c->classes = classes;
        c->class_capacity = grown;
    }
    char *copy = strdup(name);
    if (!copy || json_object_set_new_nocheck(c->numbers, name, json_integer(c->class_count))) {
        free(copy);
        return -1;
    }
    c->classes[c->class_count] = copy;
    return c->class_count++;
}

/* class_name NULL: none. */
static int add_candidate(candidates *c, const char *id, const char *path, const char *class_name) {
    if (c->count == c->capacity) {
        int64_t grown = c->capacity ? 2 * c->capacity : 256;
        evaluate_image *images = realloc(c->images, (size_t)grown * sizeof *images);
        if (!images)
            return cli_fail_memory();
        c->images = images;
        c->capacity = grown;
    }
    evaluate_image *image = &c->images[c->count++];
    *image = (evaluate_image){.id = strdup(id), .path = strdup(path), .class_index = -1};
    if (class_name)
        image->class_index = class_number(c, class_name);
    bool good = image->id && image->path && (!class_name || image->class_index >= 0);
    return good ? CLI_DONE : cli_fail_memory();
}

/* labels.json: {"file.png": {"class": ...}} as models/recipe/scenes.py writes it. */
static int read_labels(candidates *c, const char *folder, const char *file) {
    json_error_t error;
    json_t *labels = json_load_file(file, JSON_REJECT_DUPLICATES, &error), *entry;
    const char *id;
    int code = CLI_DONE;
    if (!labels)
        return cli_fail(CLI_INPUT, "%s: line %d: %s", file, error.line, error.text);
    if (!json_is_object(labels))
        code = cli_fail(CLI_INPUT, "%s: is no JSON object of files", file);
    json_object_foreach(labels, id, entry) {
        const char *name = json_string_value(json_object_get(entry, "class"));
        char *path = cli_path(folder, id);
        if (!path)
            code = cli_fail_memory();
        else if (!name || !*name)
            code = cli_fail(CLI_INPUT, "%s: %s has no class", file, id);
        else
            code = add_candidate(c, id, path, name);
        free(path);
        if (code)
            break;
    }
    if (!code && !c->count)
        code = cli_fail(CLI_INPUT, "%s: names no image", file);
    json_decref(labels);
    return code;
}

/* How much of a file's path is the folder. */
static size_t root_length(const char *folder) {
    size_t length = strlen(folder);
    while (length > 0 && folder[length - 1] == '/')
        length--;
    return length;
}

/* Folders of images: the first one below is the class. */
static int read_folders(candidates *c, const char *folder, const char *skipped, bool has_classes) {
    cli_inputs files = {0};
    int code = evaluate_files(&files, folder, skipped);
    for (int64_t i = 0; !code && i < files.count; i++) {
        const char *path = files.items[i].path, *id = path + root_length(folder);
        id += strspn(id, "/");
        const char *slash = strchr(id, '/');
        if (has_classes && !slash)
            continue;
        char *name = has_classes ? strndup(id, (size_t)(slash - id)) : NULL;
        code = has_classes && !name ? cli_fail_memory() : add_candidate(c, id, path, name);
        free(name);
    }
    if (!code && !c->count)
        code =
            has_classes
                ? cli_fail(CLI_INPUT, "%s: holds no class folders with images, and no labels.json",
                           folder)
                : cli_fail(CLI_INPUT, "%s: no image files in this folder or those in it", folder);
    cli_inputs_free(&files);
    return code;
}

/* ---------------------------------------------------------------- selection ------------------ */

static int compare_keys(const evaluate_image *a, const evaluate_image *b) {
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return strcmp(a->id, b->id);
}

static int by_class_and_key(const void *left, const void *right) {
    const evaluate_image *a = left, *b = right;
    if (a->class_index != b->class_index)
        return a->class_index < b->class_index ? -1 : 1;
    return compare_keys(a, b);
}

/* One image with its place within its class while the set is made. */
typedef struct placed {
    evaluate_image *image;
    int64_t next; /* place among all candidates of another image of the class, -1: none */
    int64_t at;   /* own place there */
    bool taken, partner;
} placed;

static int taken_first(const void *left, const void *right) {
    const placed *a = left, *b = right;
    int rank_a = a->taken ? 0 : a->partner ? 1 : 2, rank_b = b->taken ? 0 : b->partner ? 1 : 2;
    return rank_a != rank_b ? rank_a - rank_b : compare_keys(a->image, b->image);
}

/* Marks the first `most` of each class, and of each its follower in the class, in a circle. */
static void mark(placed *p, candidates *c, int64_t most) {
    for (int64_t first = 0, end; first < c->count; first = end) {
        for (end = first + 1;
             end < c->count && c->images[end].class_index == c->images[first].class_index; end++)
            ;
        for (int64_t i = first; i < end; i++)
            p[i] = (placed){.image = &c->images[i],
                            .next = end - first < 2 ? -1
                                    : i + 1 < end   ? i + 1
                                                    : first,
                            .at = i,
                            .taken = i - first < most};
    }
    for (int64_t i = 0; i < c->count; i++)
        if (p[i].taken && p[i].next >= 0)
            p[p[i].next].partner = true;
}

static int64_t *numbers(int64_t count) {
    return calloc((size_t)count + 1, sizeof(int64_t));
}

typedef struct classed {
    int32_t class_index;
    int64_t image;
} classed;

static int compare_classes(const void *left, const void *right) {
    const classed *a = left, *b = right;
    if (a->class_index != b->class_index)
        return a->class_index < b->class_index ? -1 : 1;
    return a->image < b->image ? -1 : a->image > b->image;
}

/* As many pairs as there can be. Of the images class by class, the largest class first, those of
 * the first half go with those of the second: no class reaches over half of them. Where the largest
 * does, each image of another class goes with one of it. */
static void make_pairs(evaluate_set *set, const classed *order) {
    const int64_t n = set->count;
    int64_t start = 0, most = 0;
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && order[end].class_index == order[i].class_index; end++)
            ;
        if (end - i > most) {
            start = i;
            most = end - i;
        }
    }
    set->pair_count = n / 2 < n - most ? n / 2 : n - most;
    for (int64_t i = 0; i < set->pair_count; i++) {
        set->pairs[2 * i] = order[(start + i) % n].image;
        set->pairs[2 * i + 1] = order[(start + n - set->pair_count + i) % n].image;
    }
}

/* Sizes and times stand for the contents, which would take long to read on each start. */
static void hash_set(evaluate_set *set) {
    cli_hash_start(&set->hash);
    for (int64_t i = 0; i < set->total; i++) {
        const evaluate_image *image = &set->images[i];
        const char *name = image->class_index < 0 ? "" : set->classes[image->class_index];
        int64_t state[3] = {-1, 0, 0}; /* what cannot be read has none */
        struct stat info;
        if (stat(image->path, &info) == 0) {
            state[0] = info.st_size;
            state[1] = info.st_mtim.tv_sec;
            state[2] = info.st_mtim.tv_nsec;
        }
        cli_hash_add(&set->hash, image->id, strlen(image->id) + 1);
        cli_hash_add(&set->hash, name, strlen(name) + 1);
        cli_hash_add(&set->hash, state, sizeof state);
    }
}

static int arrange(evaluate_set *set) {
    set->by_class = numbers(set->count);
    set->pairs = numbers(set->count + 1);
    classed *order = calloc((size_t)set->count + 1, sizeof *order);
    if (!set->by_class || !set->pairs || !order) {
        free(order);
        return cli_fail_memory();
    }
    for (int64_t i = 0; i < set->count; i++)
        order[i] = (classed){set->images[i].class_index, i};
    qsort(order, (size_t)set->count, sizeof *order, compare_classes);
    for (int64_t i = 0; i < set->count; i++)
        set->by_class[i] = order[i].image;
    make_pairs(set, order);
    free(order);
    hash_set(set);
    return CLI_DONE;
}

/* Takes the names of c over; those of images that are not needed are freed. */
static int select_images(evaluate_set *out, candidates *c, uint64_t seed, int64_t most) {
    size_t n = (size_t)c->count;
    for (int64_t i = 0; i < c->count; i++)
        set_keys(&c->images[i], seed);
    qsort(c->images, n, sizeof *c->images, by_class_and_key);
    placed *p = calloc(n, sizeof *p);
    int64_t *where = numbers(c->count);
    out->images = calloc(n, sizeof *out->images);
    out->same = numbers(c->count);
    int code = p && where && out->images && out->same ? CLI_DONE : cli_fail_memory();
    if (code)
        goto done;
    mark(p, c, most);
    qsort(p, n, sizeof *p, taken_first);
    for (size_t i = 0; i < n && (p[i].taken || p[i].partner); i++) {
        where[p[i].at] = (int64_t)i;
        out->images[i] = *p[i].image;
        *p[i].image = (evaluate_image){0};
        out->count += p[i].taken;
        out->total++;
    }
    for (int64_t i = 0; i < out->count; i++)
        out->same[i] = p[i].next < 0 ? -1 : where[p[i].next];
    out->classes = c->classes;
    out->class_count = c->class_count;
    c->classes = NULL;
    c->class_count = 0;
    code = arrange(out);
done:
    free(p);
    free(where);
    return code;
}

/* Classes that no taken image has do not exist, as every class has an image. */
int evaluate_set_labelled(evaluate_set *out, const char *folder, const char *skipped, uint64_t seed,
                          int32_t per_class) {
    struct stat info;
    candidates c = {.numbers = json_object()};
    char *labels = cli_path(folder, "labels.json");
    int code = c.numbers && labels ? CLI_DONE : cli_fail_memory();
    if (!code && stat(folder, &info) != 0)
        code = cli_fail(CLI_INPUT, "%s: no such folder", folder);
    else if (!code && !S_ISDIR(info.st_mode))
        code = cli_fail(CLI_INPUT, "%s: is no folder", folder);
    if (!code)
        code = stat(labels, &info) == 0 ? read_labels(&c, folder, labels)
                                        : read_folders(&c, folder, skipped, true);
    if (!code)
        code = select_images(out, &c, seed, per_class);
    candidates_free(&c);
    free(labels);
    return code;
}

int evaluate_set_plain(evaluate_set *out, const char *folder, const char *skipped, uint64_t seed) {
    struct stat info;
    candidates c = {0};
    int code = CLI_DONE;
    if (stat(folder, &info) != 0)
        code = cli_fail(CLI_INPUT, "%s: no such folder", folder);
    else if (!S_ISDIR(info.st_mode))
        code = cli_fail(CLI_INPUT, "%s: is no folder", folder);
    if (!code)
        code = read_folders(&c, folder, skipped, false);
    if (!code)
        code = select_images(out, &c, seed, INT64_MAX);
    candidates_free(&c);
    return code;
}

void evaluate_set_free(evaluate_set *set) {
    for (int64_t i = 0; i < set->total; i++) {
        free(set->images[i].id);
        free(set->images[i].path);
    }
    for (int32_t i = 0; i < set->class_count; i++)
        free(set->classes[i]);
    free(set->images);
    free(set->classes);
    free(set->same);
    free(set->by_class);
    free(set->pairs);
    *set = (evaluate_set){0};
}
