#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Length of the longest prefix of the path that is there, 0 where nothing is. */
static size_t existing_length(char *path) {
    struct stat info;
    size_t length = strlen(path);
    for (;;) {
        char end = path[length];
        path[length] = 0;
        bool there = length > 0 && stat(path, &info) == 0;
        path[length] = end;
        if (there || length == 0)
            return length;
        do
            length--;
        while (length > 0 && path[length] != '/');
        if (length == 0 && path[0] == '/')
            return 1;
    }
}

/* The folder that holds a file, or the folder itself, followed through links. */
static bool place_of(struct stat *info, const char *path) {
    if (stat(path, info) != 0)
        return false;
    if (S_ISDIR(info->st_mode))
        return true;
    char *real = realpath(path, NULL), *slash = real ? strrchr(real, '/') : NULL;
    if (slash)
        slash[slash == real] = 0;
    bool found = slash && stat(real, info) == 0;
    free(real);
    return found;
}

/* Results could replace an input that lies in the output folder. */
static int check_apart(const char *path, const char *const *inputs, int count) {
    struct stat output, place;
    if (stat(path, &output) != 0)
        return CLI_DONE;
    for (int i = 0; i < count; i++)
        if (place_of(&place, inputs[i]) && place.st_dev == output.st_dev &&
            place.st_ino == output.st_ino)
            return cli_fail(CLI_USAGE, "-o %s: holds the input %s: take another folder", path,
                            inputs[i]);
    return CLI_DONE;
}

int cli_folder_check(const cli_values *values) {
    const char *path = values->output;
    struct stat info;
    char *copy = strdup(path);
    if (!copy)
        return cli_fail_memory();
    size_t length = existing_length(copy);
    copy[length] = 0;
    const char *there = length ? copy : ".";
    int code = CLI_DONE;
    if (stat(there, &info) == 0 && !S_ISDIR(info.st_mode))
        code = cli_fail(CLI_FAILED, "%s: is a file, not a folder", there);
    else if (access(there, W_OK | X_OK) != 0)
        code = cli_fail(CLI_FAILED, "%s: cannot be written (%s)", there, strerror(errno));
    free(copy);
    return code ? code : check_apart(path, values->arguments, values->argument_count);
}

int cli_folder_make(const char *path, size_t *made_from) {
    struct stat info;
    char *copy = strdup(path);
    *made_from = 0;
    if (!copy)
        return cli_fail_memory();
    size_t whole = strlen(copy), length = existing_length(copy);
    bool good = true;
    while (good && length < whole) {
        length++;
        while (length < whole && copy[length] != '/')
            length++;
        char end = copy[length];
        copy[length] = 0;
        good = mkdir(copy, 0777) == 0 || errno == EEXIST;
        if (good && !*made_from)
            *made_from = length;
        copy[length] = end;
    }
    good = good && stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    int code =
        good ? CLI_DONE
             : cli_fail(CLI_FAILED, "%s: cannot be made a folder (%s)", path, strerror(errno));
    if (!good)
        cli_folder_unmake(path, *made_from);
    free(copy);
    return code;
}

/* Removes the folders that were made, as far as they are empty. */
void cli_folder_unmake(const char *path, size_t made_from) {
    char *copy = made_from ? strdup(path) : NULL;
    for (size_t length = copy ? strlen(copy) : 0; length >= made_from && length > 0; length--) {
        if (copy[length] == '/' || copy[length] == 0) {
            copy[length] = 0;
            if (rmdir(copy) != 0 && errno != ENOENT && errno != EINVAL)
                break;
        }
    }
    free(copy);
}
