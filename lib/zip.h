/* Zip archives as NumPy's savez writes them: stored or deflated members, ZIP64, one disk. */
#ifndef FI_ZIP_H
#define FI_ZIP_H

#include "file.h"
#include "source.h"

typedef struct fi_zip_member {
    char *name;      /* as in the directory, with its ".npy" */
    uint64_t header; /* offset of the local header */
    uint64_t end;    /* where the next member or the directory begins */
    uint64_t stored, size;
    uint32_t crc;
    uint16_t flags, method;
} fi_zip_member;

typedef struct fi_zip {
    const char *path;       /* borrowed */
    int fd;                 /* borrowed */
    fi_zip_member *members; /* in the directory's order */
    size_t count;
} fi_zip;

enum { FI_ZIP_STORED = 0, FI_ZIP_DEFLATED = 8 };

/* Reads and checks the whole directory as hostile input: one archive that fills the file, no
 * duplicate names, no overlapping members, sizes that deflate can reach, at most 8 GiB in all.
 * Errors: READ, FORMAT, LIMIT, MEMORY. */
featinv_status fi_zip_open(fi_zip *out, int fd, uint64_t file_bytes, const char *path);
void fi_zip_close(fi_zip *zip);

/* Opens a member's content, its local header checked against the directory. */
featinv_status fi_zip_source(fi_source *source, const fi_zip *zip, const fi_zip_member *member);

/* Writes an archive member by member. Sizes are known beforehand, so the file is readable from the
 * front, too. */
typedef struct fi_zip_writer fi_zip_writer;
featinv_status fi_zip_writer_open(fi_zip_writer **out, const char *path);
/* One member made of two blocks (an .npy header and its data); deflated where `deflated` is set. */
featinv_status fi_zip_writer_add(fi_zip_writer *writer, const char *name, const void *head,
                                 size_t head_bytes, const void *data, size_t data_bytes,
                                 bool deflated);
/* Writes the directory and renames into place; frees the writer either way. */
featinv_status fi_zip_writer_commit(fi_zip_writer *writer);
void fi_zip_writer_abort(fi_zip_writer *writer);

#endif
