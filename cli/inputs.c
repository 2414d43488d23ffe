#include "inputs.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MOST_NAME = 180 }; /* bytes of an output's name, so that suffixes fit behind it */

/* ---------------------------------------------------------------- list ----------------------- */

/* Takes over path and error. */
static int add(cli_inputs *inputs, char *path, char *error, int code) {
    if (path && inputs->count == inputs->capacity) {
        int64_t grown = inputs->capacity ? 2 * inputs->capacity : 16;
        cli_input *items = realloc(inputs->items, (size_t)grown * sizeof *items);
        if (items) {
            inputs->items = items;
            inputs->capacity = grown;
        }
    }
    if (!path || inputs->count == inputs->capacity || (code && !error)) {
        free(path);
        free(error);
        return cli_fail_memory();
    }
    inputs->items[inputs->count++] = (cli_input){path, NULL, error, code};
    return CLI_DONE;
}

static char *text_of(const char *path, const char *what) {
    size_t size = strlen(path) + strlen(what) + 3;
    char *text = malloc(size);
    if (text)
        (void)snprintf(text, size, "%s: %s", path, what);
    return text;
}

static int add_bad(cli_inputs *inputs, const char *path, const char *what) {
    return add(inputs, strdup(path), text_of(path, what), CLI_INPUT);
}

/* ---------------------------------------------------------------- folders -------------------- */

static bool has_image_suffix(const char *name) {
    static const char *const suffixes[] = {".png", ".jpg", ".jpeg"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t n = strlen(suffixes[i]);
        if (length > n && strcasecmp(name + length - n, suffixes[i]) == 0)
            return true;
    }
    return false;
}

static bool has_image_content(const char *path) {
    unsigned char head[8] = {0};
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        (void)fclose(f);
    return (n == 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) ||
           (n >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0);
}

/* Regular files that look like images by name (a damaged one shall be reported) or by content. */
static bool is_image_file(const char *path, const char *name) {
    struct stat info;
    if (name[0] == '.' || stat(path, &info) != 0 || !S_ISREG(info.st_mode))
        return false;
    return has_image_suffix(name) || has_image_content(path);
}

static int compare_paths(const void *left, const void *right) {
    const cli_input *a = left, *b = right;
    return strcmp(a->path, b->path); /* by bytes, whatever the locale */
}

static int add_folder(cli_inputs *inputs, const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir)
        return add_bad(inputs, folder, strerror(errno));
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    int64_t first = inputs->count;
    int code = CLI_DONE;
    for (struct dirent *entry; !code && (entry = readdir(dir));) {
        size_t size = length + strlen(entry->d_name) + 2;
        char *path = malloc(size);
        if (!path) {
            code = cli_fail_memory();
            break;
        }
        (void)snprintf(path, size, "%s%s%s", folder, slash, entry->d_name);
        if (is_image_file(path, entry->d_name))
            code = add(inputs, path, NULL, CLI_DONE);
        else
            free(path);
    }
    (void)closedir(dir);
    if (!code && inputs->count == first)
        return add_bad(inputs, folder, "no image files in this folder");
    if (!code)
        qsort(inputs->items + first, (size_t)(inputs->count - first), sizeof *inputs->items,
              compare_paths);
    return code;
}

/* ---------------------------------------------------------------- names ---------------------- */

/* The file's name without folder and suffix. */
static char *stem_of(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/')
        start--;
    size_t end = length;
    for (size_t i = length; i > start + 1; i--)
        if (path[i - 1] == '.') {
            end = i - 1;
            break;
        }
    size_t n = end - start < MOST_NAME ? end - start : MOST_NAME;
    return n ? strndup(path + start, n) : strdup("image");
}

typedef struct stem {
    char *text;
    int64_t input;
} stem;

static int compare_stems(const void *left, const void *right) {
    const stem *a = left, *b = right;
    int order = strcmp(a->text, b->text);
    return order ? order : a->input < b->input ? -1 : a->input > b->input;
}

static int compare_key(const void *key, const void *element) {
    const stem *s = element;
    return strcmp(key, s->text);
}

/* "photo-2", with the first number above *number that gives no other input's stem. */
static char *numbered(const stem *stems, size_t count, const char *text, size_t *number) {
    size_t size = strlen(text) + 24;
    char *name = malloc(size);
    do {
        if (name)
            (void)snprintf(name, size, "%s-%zu", text, ++*number);
    } while (name && bsearch(name, stems, count, sizeof *stems, compare_key));
    return name;
}

/* Inputs of one stem are numbered from the second on: photo, photo-2, photo-3. */
static int name_inputs(cli_inputs *inputs) {
    size_t n = (size_t)inputs->count, number = 1;
    stem *stems = calloc(n + 1, sizeof *stems);
    bool good = stems != NULL;
    for (size_t i = 0; good && i < n; i++) {
        stems[i] = (stem){stem_of(inputs->items[i].path), (int64_t)i};
        good = stems[i].text != NULL;
    }
    if (good)
        qsort(stems, n, sizeof *stems, compare_stems);
    for (size_t i = 0; good && i < n; i++) {
        bool first = i == 0 || strcmp(stems[i].text, stems[i - 1].text) != 0;
        if (first)
            number = 1;
        char *name = first ? strdup(stems[i].text) : numbered(stems, n, stems[i].text, &number);
        inputs->items[stems[i].input].name = name;
        good = name != NULL;
    }
    for (size_t i = 0; stems && i < n; i++)
        free(stems[i].text);
    free(stems);
    return good ? CLI_DONE : cli_fail_memory();
}

int cli_inputs_list(cli_inputs *out, const char *const *arguments, int count) {
    *out = (cli_inputs){0};
    int code = CLI_DONE;
    for (int i = 0; !code && i < count; i++) {
        struct stat info;
        if (stat(arguments[i], &info) != 0)
            code = add_bad(out, arguments[i], errno == ENOENT ? "no such file" : strerror(errno));
        else if (S_ISDIR(info.st_mode))
            code = add_folder(out, arguments[i]);
        else
            code = add(out, strdup(arguments[i]), NULL, CLI_DONE);
    }
    return code ? code : name_inputs(out);
}

void cli_inputs_free(cli_inputs *inputs) {
    for (int64_t i = 0; i < inputs->count; i++) {
        free(inputs->items[i].path);
        free(inputs->items[i].name);
        free(inputs->items[i].error);
    }
    free(inputs->items);
    *inputs = (cli_inputs){0};
}
