/* libfeatinv: from an image to the feature map of a vision model, and back.
 *
 * FeatInv (Neukirch, Vielhaben, Strodthoff 2025) steers a frozen latent diffusion model with a
 * ControlNet that reads a feature map, so that it draws images whose features match.
 *
 *     featinv_model *model = NULL;
 *     featinv_session *session = NULL;
 *     if (featinv_model_open(&model, NULL, NULL) ||             // NULL: the default bundle
 *         featinv_session_create(&session, model, NULL)) {      // NULL: default options
 *         fprintf(stderr, "%s\n", featinv_last_error());
 *         return 1;
 *     }
 *     featinv_image photo = {pixels, width, height, 0};         // packed 8-bit RGB
 *     int64_t shape[4] = {1, 64, 64, 3};                        // of the model's images
 *     featinv_tensor drawn = featinv_tensor_view(bytes, FEATINV_DTYPE_U8, 4, shape);
 *     featinv_reconstruct(&drawn, &score, session, &photo, 1, NULL);
 *     printf("cosine %.3f\n", score.cosine_median);
 *     featinv_session_destroy(session);
 *     featinv_model_release(model);
 *
 * Rules that hold everywhere
 * - Every function that can fail returns a featinv_status: 0 is success, failures are negative, and
 *   featinv_last_error() of the same thread then holds one line of text. No call aborts or exits,
 *   but for featinv_ranks_leave where MPI has failed.
 * - Results come first in the argument list. A pointer to a pointer gives you an object to release;
 *   a plain pointer that is returned is borrowed from its owner.
 * - Option structs begin with struct_size. Call their _init function with sizeof, change what you
 *   like; a NULL options argument means all defaults. Fields are only ever appended. Structs that
 *   carry results or items (featinv_array_info, featinv_model_details, featinv_concepts_details,
 *   featinv_cosine_result, featinv_trainer_batch, featinv_trainer_result, featinv_report_item) have
 *   no _init: write `= {.struct_size = sizeof x}`.
 * - Outputs are written into the caller's memory: on the host, in C order, of exactly the stated
 *   shape. Inputs may have any strides and lie on the CPU or a CUDA device (they are copied then),
 *   and are never written through. No pointer is kept after a call; what is kept is copied.
 * - Besides the errors that a call lists: ARGUMENT for a NULL or a number out of range, SHAPE for a
 *   tensor that does not fit, VALUE for NaN or infinity, MEMORY; with a session also BUNDLE and
 *   HASH when a weight is first used, COMPUTE, FORK and CANCELLED. After a failure the outputs are
 *   unspecified, except that rows [0, *completed) are final.
 * - Threads: a featinv_model is immutable and shared by threads. A featinv_session belongs to one
 *   thread at a time; featinv_session_cancel alone may come from any thread or a signal handler.
 *   The functions on images, arrays, concepts and metrics keep no state; a featinv_fid or
 *   featinv_report belongs to one thread at a time.
 * - After fork() a child must not use or free handles that have touched the backend: calls there
 *   return FORK.
 * - Maps are float32 (N, C, H, W) whatever the layout inside the backbone; images are 8-bit RGB
 *   (N, H, W, 3); latents are the scaled z, float32 (N * samples, C, h, w), map-major: sample k of
 *   map n is row n * samples + k.
 *
 * "Paper" is FeatInv unless said otherwise. docs/numerics.md states the arithmetic.
 */
#ifndef FEATINV_H
#define FEATINV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FEATINV_API __attribute__((visibility("default")))
#else
#define FEATINV_API
#endif

#define FEATINV_VERSION_MAJOR 0
#define FEATINV_VERSION_MINOR 1
#define FEATINV_VERSION_PATCH 0

/* ---------------------------------------------------------------- status and library ---------- */

/** Result of a call: FEATINV_OK or a negative FEATINV_ERROR_ value; the numbers never change. */
typedef int32_t featinv_status;

enum {
    FEATINV_OK = 0,
    /* the call */
    FEATINV_ERROR_INTERNAL = -1,    /* a defect of the library */
    FEATINV_ERROR_MEMORY = -2,      /* out of memory, host or device */
    FEATINV_ERROR_ARGUMENT = -3,    /* an argument or option out of range */
    FEATINV_ERROR_UNSUPPORTED = -4, /* this bundle or build cannot do that */
    FEATINV_ERROR_CANCELLED = -5,   /* stopped by featinv_session_cancel or by the progress call */
    FEATINV_ERROR_CAPACITY = -6,    /* a caller's buffer is too small */
    FEATINV_ERROR_FORK = -7,        /* a backend opened before fork() cannot be used in the child */
    /* input and output files, and data that does not fit */
    FEATINV_ERROR_WRITE = -10,     /* an output could not be written */
    FEATINV_ERROR_NOT_FOUND = -11, /* no such file, array, class or context */
    FEATINV_ERROR_READ = -12,      /* the system refused to read it */
    FEATINV_ERROR_FORMAT = -13,    /* damaged, truncated, hostile or of an unknown format */
    FEATINV_ERROR_LIMIT = -14,     /* larger than the limits allow */
    FEATINV_ERROR_SHAPE = -15,     /* rank, shape or dtype does not fit */
    FEATINV_ERROR_VALUE = -16,     /* NaN or infinity in data */
    /* bundles */
    FEATINV_ERROR_BUNDLE = -20,  /* the manifest or a file of the bundle is refused */
    FEATINV_ERROR_HASH = -21,    /* a file is not the one that the manifest describes */
    FEATINV_ERROR_VERSION = -22, /* a bundle version or backend that this library does not know */
    /* backend and device */
    FEATINV_ERROR_BACKEND = -30, /* the backend or its libtorch is missing or a wrong one */
    FEATINV_ERROR_DEVICE = -31,  /* no such device */
    FEATINV_ERROR_COMPUTE = -32  /* the backend failed while computing */
};

/** "0.1.0", static storage. Never fails. */
FEATINV_API const char *featinv_version(void);

/** One line about this build: compiler, libpng, libjpeg, zlib, jansson, OpenSSL. Static storage. */
FEATINV_API const char *featinv_build_info(void);

/** The text of the last failure in this thread: one line, starts in lower case, names the offending
 *  file and value. Never NULL; empty before any failure; success does not clear it. Valid until
 *  the thread's next failing call. */
FEATINV_API const char *featinv_last_error(void);

/** "FEATINV_ERROR_SHAPE" and so on; "unknown status" for other numbers. Static storage. */
FEATINV_API const char *featinv_status_name(featinv_status status);

/** Opens the backend now instead of at the first model call: a missing libtorch shows early.
 *  path: a backend file, or NULL for FEATINV_BACKEND in the environment, else libfeatinv-torch.so
 *  beside libfeatinv.so. Once open, a backend stays until the process ends; opening the same again
 *  is OK. Errors: BACKEND. */
FEATINV_API featinv_status featinv_backend_load(const char *path);

/** One line about the open backend ("libtorch 2.11.0, CUDA plug-in: none, 0 devices, 2 threads").
 *  Loads it first where needed. Errors: BACKEND, CAPACITY. */
FEATINV_API featinv_status featinv_backend_info(char *text, size_t capacity);

/* ---------------------------------------------------------------- tensor --------------------- */

/** Element types. The numbers are part of the ABI. */
typedef int32_t featinv_dtype;
enum {
    FEATINV_DTYPE_NONE = 0, /* "as stored" where a function converts */
    FEATINV_DTYPE_F32 = 1,
    FEATINV_DTYPE_F16 = 2,
    FEATINV_DTYPE_BF16 = 3,
    FEATINV_DTYPE_F64 = 4,
    FEATINV_DTYPE_U8 = 5,
    FEATINV_DTYPE_I32 = 6,
    FEATINV_DTYPE_I64 = 7,
    FEATINV_DTYPE_BOOL = 8,
    FEATINV_DTYPE_I8 = 9,
    FEATINV_DTYPE_I16 = 10,
    FEATINV_DTYPE_U16 = 11,
    FEATINV_DTYPE_U32 = 12,
    FEATINV_DTYPE_U64 = 13
};

/** A borrowed view of an array; same layout as DLPack's DLTensor, so one may be cast to the other.
 *  shape and strides (in elements; NULL: C order) point to ndim values that outlive the call. */
typedef struct featinv_tensor {
    void *data;
    int32_t device_type; /* DLPack: 1 CPU, 2 CUDA */
    int32_t device_id;
    int32_t ndim;
    uint8_t dtype_code; /* DLPack: 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool */
    uint8_t dtype_bits;
    uint16_t dtype_lanes; /* 1 */
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} featinv_tensor;

/** A C-ordered CPU view over data. shape is borrowed. For an input cast const away: it is only
 *  read. An unknown dtype gives a view that every call refuses. */
FEATINV_API featinv_tensor featinv_tensor_view(void *data, featinv_dtype dtype, int32_t ndim,
                                               int64_t *shape);

/** A view of a DLManagedTensor (which stays the caller's; the view borrows from it): the
 *  unversioned struct of a capsule called "dltensor". A DLManagedTensorVersioned cannot be told
 *  apart: never pass it.
 *  Errors: ARGUMENT for NULL, UNSUPPORTED for another dtype or device. */
FEATINV_API featinv_status featinv_tensor_from_dlpack(featinv_tensor *out,
                                                      const void *dl_managed_tensor);

/** A new DLManagedTensor (unversioned) over a view; shape and strides are copied. release(owner),
 *  where not NULL, runs when its consumer deletes it, and not when this call fails. */
FEATINV_API featinv_status featinv_tensor_to_dlpack(void **dl_managed_tensor,
                                                    const featinv_tensor *tensor, void *owner,
                                                    void (*release)(void *owner));

/* ---------------------------------------------------------------- image ---------------------- */

/** 8-bit RGB pixels, rows from the top. row_bytes 0 means packed (3 * width). */
typedef struct featinv_image {
    const uint8_t *pixels;
    int32_t width, height;
    int64_t row_bytes;
} featinv_image;

typedef int32_t featinv_filter;
enum { FEATINV_FILTER_BILINEAR = 0, FEATINV_FILTER_BICUBIC = 1 };

/** Reads a PNG or JPEG file (by content, not by suffix) as Pillow's convert("RGB") does: alpha
 *  dropped, gamma and ICC ignored, EXIF orientation applied. Samples of 16 bits keep their high
 *  byte; Pillow does so for RGB but clips 16-bit grey, so there the pixels differ on purpose.
 *  pixels: capacity bytes, filled with height * width * 3; NULL asks for the size only. On
 *  CAPACITY width and height are set, too. max_pixels: 0 means 64 * 2^20. Errors: NOT_FOUND, READ,
 *  FORMAT, LIMIT, CAPACITY. */
FEATINV_API featinv_status featinv_image_read(uint8_t *pixels, size_t capacity, int32_t *width,
                                              int32_t *height, const char *path,
                                              int64_t max_pixels);

/** Writes a PNG (path ends in .png) or JPEG (.jpg, .jpeg; quality 95, no subsampling), atomically.
 *  Errors: WRITE, ARGUMENT for another suffix. */
FEATINV_API featinv_status featinv_image_write(const char *path, const featinv_image *image);

/** Resizes with Pillow's antialiased fixed-point arithmetic, bit-equal to Image.resize. out holds
 *  height * width * 3 bytes. */
FEATINV_API featinv_status featinv_image_resize(uint8_t *out, int32_t width, int32_t height,
                                                const featinv_image *image, featinv_filter filter);

/* ---------------------------------------------------------------- array ---------------------- */

#define FEATINV_MAX_DIMS 8

typedef struct featinv_array_info {
    uint32_t struct_size;
    featinv_dtype dtype; /* as stored in the file */
    int32_t ndim;
    int32_t reserved;
    int64_t shape[FEATINV_MAX_DIMS];
} featinv_array_info;

/** Reads an .npy file, or one member of an .npz, into C order and native endianness.
 *  data: capacity bytes, NULL asks for info only. member: NULL takes the only array, or `features`.
 *  dtype: what to convert to (numbers to F32 or F64, U8 only from U8), NONE keeps the stored one.
 *  Errors: NOT_FOUND (file or member), READ, FORMAT (object, complex, string; lying sizes;
 *  duplicate names), LIMIT (header over 64 kB, 8 GiB in all), SHAPE, CAPACITY. */
FEATINV_API featinv_status featinv_array_read(void *data, size_t capacity, featinv_array_info *info,
                                              const char *path, const char *member,
                                              featinv_dtype dtype);

/** Writes arrays atomically: path ending in .npz takes any number of named arrays, .npy exactly one
 *  (names may be NULL). compress: 1 deflates .npz members. Errors: WRITE, ARGUMENT. */
FEATINV_API featinv_status featinv_array_write(const char *path, const featinv_tensor *arrays,
                                               const char *const *names, int32_t count,
                                               int32_t compress);

/* ---------------------------------------------------------------- model ---------------------- */

/** An opened bundle (docs/bundle.md): immutable, reference-counted, shared by threads. */
typedef struct featinv_model featinv_model;

/** What a bundle holds. Strings and pointers are borrowed from the model. */
typedef struct featinv_model_details {
    uint32_t struct_size;
    int32_t has_backbone, has_head;     /* 0 or 1 */
    int32_t has_generator, has_encoder; /* 0 or 1 */
    const char *name;                   /* from the manifest */
    const char *path;                   /* the folder */
    const char *sha256;                 /* of manifest.json, 64 hex digits */
    const char *backbone;               /* name, NULL without backbone */
    const char *head;                   /* "linear", "layernorm-linear", "none", NULL */
    const char *layer, *layout;         /* the layer the map comes from; "nchw", "nhwc", "tokens" */
    int32_t input_height, input_width;  /* of the backbone, 0 without one */
    featinv_filter interpolation;
    double crop;
    const double *mean, *std;        /* 3 each */
    int32_t channels, height, width; /* of the feature map */
    int32_t pooled;
    const float *feature_mean;   /* (channels), NULL without features.npz */
    int32_t classes, contexts;   /* how many names */
    int32_t latent[3], image[3]; /* C, H, W; zero without a generator */
    const char *prediction;      /* "epsilon" or "v" */
    int32_t timesteps;
    double latent_scale;
    int32_t steps; /* the bundle's defaults */
    double scale, hint_scale;
    uint64_t seed;
    const char *context, *uncontext;
    int64_t context_width; /* D of a prompt (L, D); 0 without a generator */
} featinv_model_details;

/** Opens the bundle in folder path, NULL: the default bundle (featinv_model_default). Checks the
 *  manifest, that exactly the listed files are there, and the hash of everything but the weights,
 *  which are hashed when a session loads them. options: reserved, pass NULL.
 *  Errors: NOT_FOUND, BUNDLE, HASH, VERSION. */
FEATINV_API featinv_status featinv_model_open(featinv_model **out, const char *path,
                                              const void *options);

/** Another reference; every reference needs its own release. */
FEATINV_API featinv_model *featinv_model_retain(featinv_model *model);
/** Gives a reference back; NULL is fine. Sessions hold their own. */
FEATINV_API void featinv_model_release(featinv_model *model);

/** Fills info; set info->struct_size first. */
FEATINV_API featinv_status featinv_model_info(featinv_model_details *info,
                                              const featinv_model *model);

/** Name of class or context index (from 0), or NULL beyond the end. Borrowed. */
FEATINV_API const char *featinv_model_class_name(const featinv_model *model, int32_t index);
FEATINV_API const char *featinv_model_context_name(const featinv_model *model, int32_t index);

/** The text of manifest.json. Borrowed. */
FEATINV_API const char *featinv_model_manifest(const featinv_model *model);

/** Path of the default bundle: FEATINV_MODEL in the environment, else share/featinv/models/scenes
 *  relative to libfeatinv.so, else the build tree's. Errors: NOT_FOUND, CAPACITY. */
FEATINV_API featinv_status featinv_model_default(char *path, size_t capacity);

/* ---------------------------------------------------------------- session -------------------- */

/** A model on a device: scratch memory, stream, cancellation. One thread at a time. */
typedef struct featinv_session featinv_session;

typedef struct featinv_session_options {
    uint32_t struct_size;
    int32_t threads;       /* CPU threads of the backend, process-wide; 0: its default */
    const char *device;    /* "auto" (default), "cpu", "cuda", "cuda:1" */
    featinv_dtype dtype;   /* F32 (default), BF16, F16; F16 on CUDA only */
    int32_t deterministic; /* 1: deterministic kernels where CUDA has them; process-wide */
    int32_t batch;         /* images or latents per forward; 0: 8 on CPU, 32 on CUDA */
    int32_t reserved;
} featinv_session_options;

FEATINV_API featinv_status featinv_session_options_init(featinv_session_options *options,
                                                        size_t size);

/** Creates a session; weights load when a call first needs them and are shared by all sessions of
 *  the model with the same device and dtype. model NULL gives linear algebra only (fid).
 *  Errors: BACKEND, DEVICE, ARGUMENT, MEMORY. */
FEATINV_API featinv_status featinv_session_create(featinv_session **out, featinv_model *model,
                                                  const featinv_session_options *options);
FEATINV_API void featinv_session_destroy(featinv_session *session);

/** Asks the call that runs in the session to stop: it returns CANCELLED within one step. Callable
 *  from any thread and from signal handlers. The session stays usable; a cancel that finds no
 *  running call has no effect. */
FEATINV_API void featinv_session_cancel(featinv_session *session);

/** The session's device ("cpu", "cuda:0") and dtype ("fp32"); borrowed. */
FEATINV_API const char *featinv_session_device(const featinv_session *session);
FEATINV_API const char *featinv_session_dtype(const featinv_session *session);

/** Called on the caller's thread: done of total units. Nonzero return cancels while some are left.
 *  Units are inputs (extract, classify, encode, decode, score), lanes times steps + 1 (sample),
 *  their sum (reconstruct), rows (concepts). */
typedef int32_t (*featinv_progress)(void *user_data, int64_t done, int64_t total);

/* ---------------------------------------------------------------- features ------------------- */

typedef struct featinv_run_options {
    uint32_t struct_size;
    int32_t reserved;
    featinv_progress progress; /* NULL: none */
    void *user_data;
    int64_t *completed; /* receives how many inputs are final, also when cancelled; may be NULL */
} featinv_run_options;

FEATINV_API featinv_status featinv_run_options_init(featinv_run_options *options, size_t size);

/** Images → feature maps (paper, section 3.1): resized (shorter side to size / crop, Pillow's
 *  arithmetic), centre crop, mean and std, backbone, last spatial map.
 *  maps: F32 (count, C, H, W); logits: F32 (count, classes) or NULL. Any image sizes.
 *  Errors: UNSUPPORTED without a backbone, SHAPE, CANCELLED. */
FEATINV_API featinv_status featinv_extract(const featinv_tensor *maps, const featinv_tensor *logits,
                                           featinv_session *session, const featinv_image *images,
                                           int64_t count, const featinv_run_options *options);

/** Maps (N, C, H, W) → logits (N, classes) through the head: F32 both.
 *  Errors: UNSUPPORTED where the head is not a function of the map. */
FEATINV_API featinv_status featinv_classify(const featinv_tensor *logits, featinv_session *session,
                                            const featinv_tensor *maps,
                                            const featinv_run_options *options);

/* ---------------------------------------------------------------- sampling ------------------- */

typedef int32_t featinv_spacing;
enum {
    FEATINV_SPACING_LEADING = 0,  /* 1 + floor(1000 i / S) */
    FEATINV_SPACING_TRAILING = 1, /* round(1000 (i + 1) / S) - 1: for few steps */
    FEATINV_SPACING_LEGACY = 2    /* 1 + (1000 div S) i, every value below 1001, as published */
};

typedef struct featinv_sample_options {
    uint32_t struct_size;
    int32_t samples;         /* per map; 1 */
    int32_t steps;           /* 1 to 999; the bundle's, else 50 */
    featinv_spacing spacing; /* LEADING */
    double scale;            /* guidance scale; the bundle's, else 1.75 */
    double hint_scale;       /* 1: the published two branches */
    double strength;         /* factor on every control residual; 1 */
    double eta;              /* 0: DDIM, 1: DDPM-like noise */
    uint64_t seed;           /* the bundle's, else 100 */
    /* 1: no ControlNet in the negative branch, residual i of n times
                          .825^(n-1-i); needs hint_scale 1 */
    int32_t guess_mode;
    int32_t legacy_bytes;            /* 1: truncate to bytes as published, 0: round */
    const char *context, *uncontext; /* names in contexts.npz; NULL: the bundle's */
    const featinv_tensor *context_data, *uncontext_data; /* F32 (L, D) instead of a name */
    const featinv_tensor *noise; /* F32 (N * samples or 1, C, h, w): x_T, not the seed's */
    const featinv_tensor
        *step_noise; /* F32 (steps run, N * samples, C, h, w), in the order run; read
                                           where eta is above 0 */
    const featinv_tensor *trace_x, *trace_x0; /* outputs, shaped like step_noise; NULL: none */
    featinv_progress progress;
    void *user_data;
    int64_t *completed; /* receives the number of samples finished, also when cancelled */
} featinv_sample_options;

/** Fills the bundle's defaults; model NULL: the library's. */
FEATINV_API featinv_status featinv_sample_options_init(featinv_sample_options *options, size_t size,
                                                       const featinv_model *model);

/** Timesteps that `steps` and `spacing` give in a schedule of 1000, ascending: count of them
 *  (LEGACY may give more than steps), and the first capacity of them into timesteps (NULL: only
 *  the count). Errors: ARGUMENT (0, 1000 and up, a legacy count that overflows). */
FEATINV_API featinv_status featinv_timesteps(int32_t *timesteps, int32_t capacity, int32_t *count,
                                             int32_t steps, featinv_spacing spacing);

/** Standard normal float32 values from the counter-based generator (Philox4x32-10,
 *  docs/numerics.md): the same bits on every machine. sample: k; step 0 is x_T, i + 1 the noise of
 *  the i-th step run. */
FEATINV_API featinv_status featinv_noise(float *out, size_t count, uint64_t seed, uint32_t sample,
                                         uint32_t step);

/** Maps → images (paper, section 3.2). images: U8 (N * samples, H, W, 3) or NULL; latents: F32
 *  (N * samples, C, h, w) or NULL; maps: F32 (N, C, H, W).
 *  Errors: SHAPE, VALUE (NaN in maps), ARGUMENT, UNSUPPORTED without a generator, CANCELLED. */
FEATINV_API featinv_status featinv_sample(const featinv_tensor *images,
                                          const featinv_tensor *latents, featinv_session *session,
                                          const featinv_tensor *maps,
                                          const featinv_sample_options *options);

/** Agreement of one sample with the map it was drawn from (paper, section 4.1). NaN and -1 where
 *  the bundle cannot say. */
typedef struct featinv_score {
    double cosine_median, cosine_mean; /* over positions */
    double cosine_centred;             /* median, feature_mean removed from both */
    int64_t top1_original, top1_sample;
    /* 0, 1, -1 unknown: the sample's top-k holds the original's top-1 */
    int32_t match_top1, match_top5;
    double seconds;     /* share of the call's time */
    double reserved[8]; /* 0; the size never changes, callers hold arrays of it */
} featinv_score;

/** Scores samples U8 (N * samples, H, W, 3) against maps F32 (N, C, H, W) and logits F32 (N,
 *  classes), or NULL: the head's, where there is one. The sample goes back as its 8-bit image,
 *  resized directly to the backbone's size. scores: N * samples. sample_maps: F32 output or
 *  NULL. */
FEATINV_API featinv_status featinv_score_samples(
    featinv_score *scores, const featinv_tensor *sample_maps, featinv_session *session,
    const featinv_tensor *samples, const featinv_tensor *maps, const featinv_tensor *logits,
    const featinv_run_options *options);

typedef struct featinv_reconstruct_options {
    uint32_t struct_size;
    int32_t reserved;
    const featinv_sample_options *sampling; /* NULL: defaults; carries progress and completed */
    const featinv_tensor *maps, *logits;    /* more outputs, each may be NULL */
    const featinv_tensor *references;       /* U8 (count, H, W, 3): inputs at generator's size */
    const featinv_tensor *latents;
    const featinv_tensor *sample_maps; /* F32 (count * samples, C, H, W) */
} featinv_reconstruct_options;

FEATINV_API featinv_status featinv_reconstruct_options_init(featinv_reconstruct_options *options,
                                                            size_t size,
                                                            const featinv_model *model);

/** Images → maps → images and scores: extract, sample, score. images: U8 (count * samples, H, W,
 *  3); scores: count * samples, or NULL; they and sample_maps are written last, so that only a
 *  call that succeeds gives them. */
FEATINV_API featinv_status featinv_reconstruct(const featinv_tensor *images, featinv_score *scores,
                                               featinv_session *session,
                                               const featinv_image *photos, int64_t count,
                                               const featinv_reconstruct_options *options);

/* ---------------------------------------------------------------- parts ---------------------- */

typedef struct featinv_denoise_options {
    uint32_t struct_size;
    int32_t strength_count;     /* number of strengths; 0: all 1 */
    const double *strengths;    /* one per residual, encoder blocks in order, middle block last */
    int32_t no_control;         /* 1: the ControlNet is not run */
    int32_t residual_count;     /* number of residual outputs below */
    const featinv_tensor *hint; /* output: encoded hint (B, M, h, w), or NULL */
    const featinv_tensor *residuals; /* outputs: residual_count tensors, unscaled, or NULL */
} featinv_denoise_options;

FEATINV_API featinv_status featinv_denoise_options_init(featinv_denoise_options *options,
                                                        size_t size);

/** One evaluation of the denoiser: x_t F32 (B, C, h, w), t I64 (B), context F32 (B, L, D), map F32
 *  (B, C, H, W) → prediction F32 (B, C, h, w) (ε or v, as the manifest says). prediction may be
 *  NULL when only options->hint is wanted: then x_t, t and context may be NULL too. */
FEATINV_API featinv_status featinv_denoise(const featinv_tensor *prediction,
                                           featinv_session *session, const featinv_tensor *x_t,
                                           const featinv_tensor *t, const featinv_tensor *context,
                                           const featinv_tensor *map,
                                           const featinv_denoise_options *options);

/** Images U8 (N, H, W, 3) of the generator's size → posterior mean and log-variance F32 (N, C, h,
 *  w), unscaled. A latent is latent_scale * (mean + exp(logvar / 2) * noise). Either output may be
 *  NULL. */
FEATINV_API featinv_status featinv_encode(const featinv_tensor *mean, const featinv_tensor *logvar,
                                          featinv_session *session, const featinv_tensor *images,
                                          const featinv_run_options *options);

/** Scaled latents F32 (N, C, h, w) → images: U8 (N, H, W, 3), or F32 (N, 3, H, W) in about [-1,
 *  1], not clamped. Any h, w up to 4096; the factor to H, W is the model's. legacy_bytes: 1
 *  truncates U8. */
FEATINV_API featinv_status featinv_decode(const featinv_tensor *images, featinv_session *session,
                                          const featinv_tensor *latents, int32_t legacy_bytes,
                                          const featinv_run_options *options);

/* ---------------------------------------------------------------- concepts ------------------- */

/** Concepts of a feature space (MCD, Vielhaben et al. 2023): K linear subspaces, each with an
 *  orthonormal basis, and the orthogonal complement of their union. A feature vector is the sum of
 *  one part in each and one in the complement (an oblique decomposition: the subspaces need not be
 *  orthogonal to each other). Immutable, reference-counted, shared by threads. Concepts count from
 *  0. Where a result has one entry per concept, the complement is the last one, K; as an argument
 *  the complement is FEATINV_COMPLEMENT. Weights are C doubles, C the concepts' channels. */
typedef struct featinv_concepts featinv_concepts;

/** In place of a concept's number: the orthogonal complement. */
#define FEATINV_COMPLEMENT (-1)

typedef int32_t featinv_concept_method;
enum {
    FEATINV_CONCEPTS_GIVEN = -1, /* featinv_concepts_create */
    FEATINV_CONCEPTS_MCD = 0,    /* sparse subspace clustering, then a basis per cluster */
    FEATINV_CONCEPTS_KMEANS = 1, /* k-means of the unit rows; a concept is a centre's direction */
    FEATINV_CONCEPTS_PCA = 2     /* principal directions of the rows, one each */
};

typedef int32_t featinv_count_rule;
enum {
    FEATINV_COUNT_RATIO = 0, /* argmax l[k+1] / max(l[k], 1e-12) over k = 2..max_count - 1; l[1]
                                <= l[2] <= ... are the smallest eigenvalues of the Laplacian */
    FEATINV_COUNT_COMPLETENESS = 1, /* the smallest K >= 2 whose completeness reaches options' */
    FEATINV_COUNT_GAP = 2,          /* argmax l[k+1] - l[k] */
    FEATINV_COUNT_LEGACY = 3        /* the same at the largest eigenvalues, as published */
};

typedef int32_t featinv_basis;
enum {
    FEATINV_BASIS_ORIGIN = 0, /* principal directions through the origin */
    FEATINV_BASIS_CENTRED = 1 /* of the centred rows, as published */
};

typedef struct featinv_fit_options {
    uint32_t struct_size;
    featinv_concept_method method;
    int32_t count;           /* K, at least 1; 0: by `rule` (MCD only) */
    int32_t max_count;       /* the largest K that a rule may choose; 10 */
    featinv_count_rule rule; /* RATIO */
    featinv_basis basis;     /* ORIGIN */
    double gamma;            /* sparsity: alpha_j = alpha0_j / gamma; above 0; 10 */
    double tau;              /* share of the L1 norm: 1 lasso, below 1 elastic net; (0, 1]; 1 */
    double outlier_quantile; /* rows of an L1 norm above it are removed; (0, 1], 1: none; .75 */
    int64_t max_rows;        /* rows drawn at random, without replacement; 0: all */
    int64_t memory;          /* bytes that the Gram matrix may take; else it is recomputed; 2^31 */
    uint64_t seed;           /* of subsampling and k-means; 0 */
    int32_t restarts;        /* of k-means; 20 */
    int32_t dimension;       /* of every concept; 0: lPCA-FO, eigenvalues above .05 of the first */
    int32_t orthogonalize;   /* 1: greedy orthogonalisation by `weight` */
    int32_t keep_coefficients; /* 1: featinv_concepts_coefficients may be called */
    const double *weight;      /* (C): class weight (featinv_class_weight), or NULL */
    double completeness;       /* for COUNT_COMPLETENESS; .5 */
    const char *class_name;    /* noted in the result; NULL: none */
    featinv_progress progress;
    void *user_data;
} featinv_fit_options;

FEATINV_API featinv_status featinv_fit_options_init(featinv_fit_options *options, size_t size);

/** Finds concepts (MCD; paper, section 3.3) in features F32: maps (N, C, H, W), whose positions
 *  are the rows in the order image, row, column, or rows (n, C). Rows are scaled to unit length,
 *  for PCA taken as they are. Clusters are numbered by size, largest first, of equals the one with
 *  the first row; PCA gives no labels. session: any, also one without a model; its threads and
 *  featinv_session_cancel count. The same seed gives the same bits on one machine with the same
 *  number of threads.
 *  Errors: ARGUMENT (options; K above the rows left, or above the groups that they form), VALUE
 *  (NaN, infinity, a row of zeros or of one value in all channels), SHAPE, UNSUPPORTED (the
 *  dimensions found exceed C), LIMIT (2^31 rows), MEMORY, COMPUTE, CANCELLED. */
FEATINV_API featinv_status featinv_concepts_fit(featinv_concepts **out, featinv_session *session,
                                                const featinv_tensor *features,
                                                const featinv_fit_options *options);

/** Concepts found by any other method (CRAFT, NMF, SAE, CAV directions): bases F64 or F32 (C,
 *  total), concept i in the columns offsets[i] to offsets[i + 1] - 1, offsets: count + 1 values
 *  from 0 to total. orthonormalize: 1 makes each concept's columns orthonormal (same subspace), 0
 *  refuses others than orthonormal ones (1e-6). Errors: SHAPE, VALUE, ARGUMENT (offsets; total
 *  above C; dependent columns). */
FEATINV_API featinv_status featinv_concepts_create(featinv_concepts **out,
                                                   const featinv_tensor *bases,
                                                   const int32_t *offsets, int32_t count,
                                                   int32_t orthonormalize);

/** Reads and writes concept files (.npz: docs/concepts.md). Errors: NOT_FOUND, READ, FORMAT, SHAPE,
 *  VALUE, LIMIT; WRITE. */
FEATINV_API featinv_status featinv_concepts_open(featinv_concepts **out, const char *path);
FEATINV_API featinv_status featinv_concepts_save(const featinv_concepts *concepts,
                                                 const char *path);

FEATINV_API featinv_concepts *featinv_concepts_retain(featinv_concepts *concepts);
FEATINV_API void featinv_concepts_release(featinv_concepts *concepts);

/** What a set of concepts is and how it was found. Pointers are borrowed from it. */
typedef struct featinv_concepts_details {
    uint32_t struct_size;
    int32_t channels, count, total; /* C, K, sum of the dimensions */
    const int32_t *offsets;         /* (K + 1) */
    const double *bases;            /* (C, total), row-major, orthonormal within each concept */
    const int32_t *labels;          /* concept of each row, -1 removed or not sampled; NULL: none */
    int32_t label_ndim;             /* 3: (N, H, W), 1: (n) */
    int32_t angle_first, angle_second; /* the two concepts with the smallest angle; -1 for K = 1 */
    int64_t label_shape[3];
    double smallest_angle;    /* principal angle between two concepts, radians; pi/2 for K = 1 */
    double smallest_singular; /* of all bases side by side; under 1e-6 there is no decomposition */
    /* of the fit; NaN, 0 or NULL for concepts that were given */
    featinv_concept_method method;
    featinv_basis basis;
    double gamma, tau, outlier_quantile;
    uint64_t seed;
    int64_t rows, rows_removed; /* rows used, and how many of them were outliers */
    double objective;           /* sum over rows of the self-representation objective */
    double stationarity;        /* largest violation of its stationarity conditions, float64 */
    double seconds;
    const double *eigenvalues; /* smallest of the normalised Laplacian, ascending */
    int32_t eigenvalue_count;
    int32_t reserved;
    const char *class_name;
} featinv_concepts_details;

/** Fills info; set info->struct_size first. */
FEATINV_API featinv_status featinv_concepts_info(featinv_concepts_details *info,
                                                 const featinv_concepts *concepts);

/** Self-representation of the last fit as compressed rows, borrowed: row j (of `rows`, all that
 *  were given) holds values[offsets[j]..offsets[j+1]) at columns indices[..]; removed rows are
 *  empty, there is no diagonal. Errors: NOT_FOUND where the fit did not keep it. */
FEATINV_API featinv_status featinv_concepts_coefficients(const int64_t **offsets,
                                                         const int32_t **indices,
                                                         const double **values, int64_t *rows,
                                                         const featinv_concepts *concepts);

/** Parts of maps F32 (N, C, H, W) in each concept: parts F32 (K + 1, N, C, H, W), complement last.
 *  They sum to the maps (1e-5 relative). Errors: SHAPE, VALUE; UNSUPPORTED where the concepts
 *  overlap (smallest singular value under 1e-6). */
FEATINV_API featinv_status featinv_concepts_decompose(const featinv_tensor *parts,
                                                      const featinv_concepts *concepts,
                                                      const featinv_tensor *maps);

/** maps - (1 - factor) * part of the concept (paper, section 4.3): factor 0 removes, .25 is the
 *  paper's, 1 copies bit for bit, above 1 amplifies. mask: F32 (H, W) or (N, H, W) in [0, 1], how
 *  much of it happens at each position; NULL: everywhere. out may be maps. Errors: as decompose,
 *  ARGUMENT. */
FEATINV_API featinv_status featinv_concepts_attenuate(const featinv_tensor *out,
                                                      const featinv_concepts *concepts,
                                                      const featinv_tensor *maps,
                                                      int32_t concept_index, double factor,
                                                      const featinv_tensor *mask);

typedef int32_t featinv_activation;
enum {
    FEATINV_ACTIVATION_IMAGE = 0,    /* over the largest norm of the image's positions */
    FEATINV_ACTIVATION_POSITION = 1, /* over each position's own norm */
    FEATINV_ACTIVATION_RAW = 2       /* as it is */
};

/** Activation maps: norm of each part at each position, F32 (K + 1, N, H, W). Can exceed 1, since
 *  the decomposition is oblique. */
FEATINV_API featinv_status featinv_concepts_activation(const featinv_tensor *activation,
                                                       const featinv_concepts *concepts,
                                                       const featinv_tensor *maps,
                                                       featinv_activation normalization);

/** Weight of a class in feature space, C doubles: d logit / d pooled feature for the linear head;
 *  for LayerNorm and linear the same for a feature of unit spread (relevance puts the real one
 *  in).
 *  Errors: UNSUPPORTED where the head is not a function of the map, NOT_FOUND (class). */
FEATINV_API featinv_status featinv_class_weight(double *weight, featinv_session *session,
                                                int32_t class_index);

/** Relevance of each concept for a class (MCD, section 3.3). Any output may be NULL.
 *  global_relevance: K + 1, length of the unit class weight's part in each concept.
 *  local_relevance: F32 (N, K + 1), share of each concept in the logit, signed: with the head's
 *  bias they sum to it. local_map: F32 (K + 1, N, H, W), the same before pooling: its mean over
 *  positions is local_relevance.
 *  session: with a backbone. maps F32 (N, C, H, W), may be NULL when only global is wanted. */
FEATINV_API featinv_status featinv_concepts_relevance(
    double *global_relevance, const featinv_tensor *local_relevance,
    const featinv_tensor *local_map, featinv_session *session, const featinv_concepts *concepts,
    const featinv_tensor *maps, int32_t class_index);

/** Completeness of the concepts for a weight (C values): length of the unit weight's projection on
 *  their span, and of the rest; the squares sum to 1. */
FEATINV_API featinv_status featinv_concepts_completeness(double *completeness, double *rest,
                                                         const featinv_concepts *concepts,
                                                         const double *weight);

/** Two concepts compared, of one set or of two (FEATINV_COMPLEMENT counts): principal angles in
 *  radians, descending, min of both dimensions, the first capacity of them into angles (may be
 *  NULL); Grassmann distance sqrt(sum of squares). Errors: SHAPE (channels), ARGUMENT. */
FEATINV_API featinv_status featinv_concepts_similarity(double *distance, double *angles,
                                                       int32_t capacity, int32_t *angle_count,
                                                       const featinv_concepts *a, int32_t index_a,
                                                       const featinv_concepts *b, int32_t index_b);

/** Concepts made orthogonal to each other, greedily: each step takes the one that adds most
 *  completeness for weight (C values) and projects it on the complement of those taken. order: K
 *  numbers of the old concepts, or NULL. Dimensions that vanish are dropped; concepts of which
 *  nothing is left go, and order ends in -1 for each of them. Labels follow the new numbers.
 *  Errors: ARGUMENT for a weight of zeros, VALUE. */
FEATINV_API featinv_status featinv_concepts_orthogonalize(featinv_concepts **out, int32_t *order,
                                                          const featinv_concepts *concepts,
                                                          const double *weight);

/* ---------------------------------------------------------------- steering ------------------- */

typedef int32_t featinv_mix_mode;
enum {
    FEATINV_MIX_LERP = 0,  /* (1 - w) a + w b (paper, section 4.2) */
    FEATINV_MIX_SLERP = 1, /* along the arc between both vectors, length interpolated */
    FEATINV_MIX_NORM = 2   /* lerp, rescaled to the interpolated length */
};

/** Mixes maps F32 (N, C, H, W) position by position; weight 0 gives a, 1 gives b, both bit for bit.
 *  Where two vectors span no arc (one is zero, or they are parallel or opposite within 1e-4
 *  radians), slerp is lerp; a lerp of zero length stays zero. out may be a or b. Errors: ARGUMENT
 *  (weight outside [0, 1]), SHAPE, VALUE. */
FEATINV_API featinv_status featinv_features_mix(const featinv_tensor *out, const featinv_tensor *a,
                                                const featinv_tensor *b, double weight,
                                                featinv_mix_mode mode);

/** Pastes maps (paper, section 4.2): (1 - m) a + m b with mask m F32 (H, W) or (N, H, W) in [0, 1];
 *  cells of m = 0 are a's bit for bit, of m = 1 b's. out may be a or b. Errors: ARGUMENT (a mask
 *  outside [0, 1]), SHAPE, VALUE. */
FEATINV_API featinv_status featinv_features_compose(const featinv_tensor *out,
                                                    const featinv_tensor *a,
                                                    const featinv_tensor *b,
                                                    const featinv_tensor *mask);

/** Mask of a map's cells for a rectangle {x0, y0, x1, y1} in pixels of an input image of width by
 *  height: each cell's weight is the share of it that the rectangle covers, after the model's
 *  resize and centre crop. mask: F32 (H, W) of the map. Errors: ARGUMENT (an empty rectangle, or
 *  one outside of the crop), UNSUPPORTED without a backbone. */
FEATINV_API featinv_status featinv_region_mask(const featinv_tensor *mask,
                                               const featinv_model *model, int32_t width,
                                               int32_t height, const double rectangle[4]);

/** The same for a soft mask: pixels F32 or U8 (height, width) of the input image, U8 over 255; a
 *  cell's weight is the mean over the pixels that it covers. */
FEATINV_API featinv_status featinv_pixel_mask(const featinv_tensor *mask,
                                              const featinv_model *model,
                                              const featinv_tensor *pixels);

/** How usual maps F32 (N, C, H, W) are beside the model's training maps (the paper leaves this
 *  open): percentiles (0 to 100) of their norm and of their residual off the leading principal
 *  directions of training positions, mean over positions; N values each, either may be NULL. 99
 *  and up: out of scope.
 *  Errors: UNSUPPORTED where the bundle's features.npz holds no such statistics. */
FEATINV_API featinv_status featinv_features_scope(double *norm_percentile,
                                                  double *residual_percentile,
                                                  const featinv_model *model,
                                                  const featinv_tensor *maps);

/* ---------------------------------------------------------------- viz ------------------------ */

typedef int32_t featinv_normalize;
enum {
    FEATINV_NORMALIZE_MAX = 0,   /* over the map's maximum */
    FEATINV_NORMALIZE_MINMAX = 1 /* (map - min) / (max - min) */
};

/** Where pairs of images differ (paper, algorithm 1): Euclidean distance over RGB in [0, 1],
 *  median over the pairs, normalised. originals, altered: U8 (P, H, W, 3). map: F32 (H, W) or
 *  NULL. mask: U8 (H, W) or NULL, 1 where the map is strictly below threshold ("unaffected").
 *  maximum: the median map's maximum before it was normalised, or NULL. A map of zeros, with
 *  minmax one of equal values, becomes zero and is masked everywhere, whatever the threshold. */
FEATINV_API featinv_status featinv_difference_map(const featinv_tensor *map,
                                                  const featinv_tensor *mask, double *maximum,
                                                  const featinv_tensor *originals,
                                                  const featinv_tensor *altered,
                                                  featinv_normalize normalization,
                                                  double threshold);

typedef struct featinv_visualize_options {
    uint32_t struct_size;
    int32_t pairs;    /* pictures of each map, each pair from one noise; 5 */
    double factor;    /* of the attenuation; .25 */
    double threshold; /* .33; negative: from the null, the 95th percentile of its map */
    featinv_normalize normalization;
    int32_t null_draws; /* random subspaces for the null; 0 without it, at least 1 with it; 0 */
    uint64_t null_seed;
    const featinv_sample_options *sampling; /* NULL: defaults; below */
    const featinv_tensor *originals;        /* output U8 (N, pairs, H, W, 3), or NULL */
    const featinv_tensor *altered;          /* output U8 (N, count, pairs, H, W, 3), or NULL */
    const featinv_tensor *null_map; /* output F32 (N, count, H, W), over the concept's maximum */
    const featinv_tensor *altered_maps; /* output F32 (N, count, C, h, w): what was drawn */
    double *maxima; /* output (N, count): before they were normalised, or NULL */
} featinv_visualize_options;

FEATINV_API featinv_status featinv_visualize_options_init(featinv_visualize_options *options,
                                                          size_t size, const featinv_model *model);

/** FeatInv-Viz (paper, algorithm 1): what changes in the picture when a concept is turned down.
 *  Draws each map and, for each of the `count` concepts in `indices`, the attenuated map from the
 *  same noises, and compares the pictures. map: F32 (N, count, H, W); mask: U8 alike or NULL;
 *  maps: F32 (N, C, h, w). The null attenuates random subspaces of the concept's dimension, scaled
 *  to change as much energy (squares summed over the map); its map is the median over the draws, 0
 *  where the concept's maximum is 0. In sampling, samples is ignored, completed receives how many
 *  maps are done (their outputs are whole, also when cancelled), noise is (N * pairs or 1, C, h,
 *  w), step_noise and traces must be NULL. A concept that leaves a map as it is shows no change.
 *  Errors: as featinv_sample and featinv_concepts_attenuate. */
FEATINV_API featinv_status featinv_visualize(const featinv_tensor *map, const featinv_tensor *mask,
                                             featinv_session *session,
                                             const featinv_concepts *concepts,
                                             const int32_t *indices, int32_t count,
                                             const featinv_tensor *maps,
                                             const featinv_visualize_options *options);

/** A heat map over an image: out, packed RGB of the image's size; heat F32 (h, w) of any size,
 *  enlarged bilinearly, clipped to [0, 1] for the colours, which are perceptually ordered; opacity
 *  (0 to 1) times heat is their share. contour: level at which an outline is drawn, NaN: none. */
FEATINV_API featinv_status featinv_image_overlay(uint8_t *out, const featinv_image *image,
                                                 const featinv_tensor *heat, double opacity,
                                                 double contour);

/* ---------------------------------------------------------------- metrics -------------------- */

typedef struct featinv_cosine_result {
    uint32_t struct_size;
    int32_t reserved;
    double median_then_mean; /* per-image median over positions, then mean over images */
    double median_all;       /* median over all positions of all images */
    double mean;             /* over all positions */
    double centred;          /* median_then_mean of a - centre and b - centre */
} featinv_cosine_result;

/** Cosine agreement of two sets of maps F32 (N, C, H, W), position by position, in double.
 *  centre: (C) values removed for `centred`; NULL: a's own channel mean. per_image,
 *  per_image_centred: N medians each, or NULL. A position whose norm is zero in one map
 *  counts 0, in both 1. Errors: SHAPE, VALUE. */
FEATINV_API featinv_status featinv_cosine(featinv_cosine_result *result, double *per_image,
                                          double *per_image_centred, const featinv_tensor *a,
                                          const featinv_tensor *b, const float *centre);

/** Spread of samples (paper, section 4: what varies is what the backbone ignores): per-pixel
 *  standard deviation over samples U8 (S, H, W, 3), root mean square over channels, in levels of 0
 *  to 255. spread: H * W values. */
FEATINV_API featinv_status featinv_spread(float *spread, const featinv_tensor *samples);

/** Fréchet distance of two sets of feature rows; rows are kept as float32, the result is computed
 *  in float64 with n - 1 covariances and no ridge. Name the features it was computed on: this is
 *  the "FID" only for Inception features. */
typedef struct featinv_fid featinv_fid;
FEATINV_API featinv_status featinv_fid_create(featinv_fid **out, int64_t dimension);
/** side 0 or 1; rows F32 (n, d), or maps (n, d, H, W), which are pooled. first_index: position of
 *  row 0 in the whole set, so that sharded updates in any order give the same result; -1
 *  appends. */
FEATINV_API featinv_status featinv_fid_update(featinv_fid *fid, int32_t side,
                                              const featinv_tensor *rows, int64_t first_index);
/** Adds a copy of the rows of another accumulator of the same dimension. */
FEATINV_API featinv_status featinv_fid_merge(featinv_fid *fid, const featinv_fid *other);
/** session: any, also one without a model. Errors: ARGUMENT for fewer than 2 rows a side. */
FEATINV_API featinv_status featinv_fid_result(double *distance, const featinv_fid *fid,
                                              featinv_session *session);
FEATINV_API void featinv_fid_destroy(featinv_fid *fid);

/* ---------------------------------------------------------------- training ------------------- */

/** Processes that train one model together, rank 0 to size - 1. Belongs to the thread that joined.
 */
typedef struct featinv_ranks featinv_ranks;

/** Joins the processes that mpirun or srun started with this one, through libfeatinv-mpi.so beside
 *  this library (FEATINV_MPI names another file). Every one of them joins, once. MPI that the
 *  program has begun itself is used, and left to it. *out: to be left, before the process ends.
 *  Errors: BACKEND where no launcher started the process, the plug-in or its MPI is missing or
 *  from another build, or MPI does not start (Open MPI may end the process itself then). */
FEATINV_API featinv_status featinv_ranks_join(featinv_ranks **out);

/** Number of this process, and how many there are; either may be NULL. */
FEATINV_API featinv_status featinv_ranks_info(int32_t *rank, int32_t *size,
                                              const featinv_ranks *ranks);

/** Collective, that is, called by every rank, in one order with the other collective calls: *value
 *  becomes the largest of all ranks' values. A rank that gives a number for its failure so tells
 *  the others, who would wait for it in the next call. Errors: BACKEND once MPI has failed. */
FEATINV_API featinv_status featinv_ranks_largest(int64_t *value, featinv_ranks *ranks);

/** Collective: waits until all ranks leave, and frees. Trainers over the ranks are destroyed
 *  before. The one call that may end the process: once MPI has failed on this rank, it ends those
 *  of all ranks (MPI_Abort), which would wait for ever. NULL is fine. */
FEATINV_API void featinv_ranks_leave(featinv_ranks *ranks);

/** Trains what turns a feature map into control over a frozen generator (paper, section 3.2).
 *  Holds weights of its own in float32, beside those of the session: its backbone and encoder stay
 *  as they are, and what the session draws does not change. Belongs to the session's thread. */
typedef struct featinv_trainer featinv_trainer;

typedef int32_t featinv_train_mode;
enum {
    FEATINV_TRAIN_LOCKED = 0,   /* the hint encoder and the ControlNet (paper) */
    FEATINV_TRAIN_UNLOCKED = 1, /* and the UNet's decoder half: output_blocks.*, out.* */
    FEATINV_TRAIN_JOINT = 2     /* and all of the UNet */
};

typedef struct featinv_trainer_options {
    uint32_t struct_size;
    featinv_train_mode mode; /* LOCKED */
    uint64_t seed;           /* of what the library draws; 0 */
    double rate;             /* learning rate; 1e-5 */
    int64_t warmup;          /* steps in which it rises linearly from rate / warmup; 0 */
    int64_t decay_steps;     /* step at which a half cosine from rate has come down to decay_floor
                                times rate; 0: it stays */
    double decay_floor;      /* .02 */
    double beta1, beta2;     /* of AdamW; .9, .999 */
    double epsilon;          /* of AdamW; 1e-8 */
    double weight_decay;     /* of AdamW, on every trained tensor; .01 */
    double clip;             /* largest L2 norm of all gradients together; 0: not clipped */
    double average;          /* decay of a moving average of the weights, at most (s + 1) / (s + 10)
                                in step s from 0; 0: none */
    double min_snr;          /* gamma of min-SNR weighting (Hang et al. 2023); 0: all weights 1 */
    double hint_dropout;     /* probability of a zero map; .1 */
    double prompt_dropout;   /* probability of the empty prompt; .1 */
    double joint_dropout;    /* probability of both together, before the two above; 0. As published:
                                .15, and 0 for the others */
    int32_t accumulation;    /* parts of a batch that run one after the other, to save memory; 1 */
    featinv_dtype precision; /* F32, or BF16 (autocast, CUDA only) */
    const char *context;     /* the prompt's name; the bundle's */
    const char *uncontext;   /* the empty prompt's name; the bundle's */
    featinv_ranks *ranks;    /* whose trainers step together; borrowed; NULL: this process alone */
} featinv_trainer_options;

FEATINV_API featinv_status featinv_trainer_options_init(featinv_trainer_options *options,
                                                        size_t size);

/** Loads the session's bundle once more, for training. The session must outlive the trainer.
 *  Errors: UNSUPPORTED without a generator; ARGUMENT; NOT_FOUND for a prompt's name. */
FEATINV_API featinv_status featinv_trainer_create(featinv_trainer **out, featinv_session *session,
                                                  const featinv_trainer_options *options);
FEATINV_API void featinv_trainer_destroy(featinv_trainer *trainer);

/** Samples of a step. Of images and latents one is given, and of views and maps. What else is NULL
 *  is drawn from (seed, step, position of the sample), so that neither order, batch nor resume
 *  changes it; the posterior of images' latents is drawn, too. */
typedef struct featinv_trainer_batch {
    uint32_t struct_size;
    int32_t reserved;
    int64_t count;                      /* n, at least 1 */
    int64_t position;                   /* of sample 0 in a batch that several processes share; 0 */
    const featinv_tensor *images;       /* U8 (n, H, W, 3): what is to be drawn */
    const featinv_tensor *views;        /* U8 (n, h, w, 3): the same at the backbone's size */
    const featinv_tensor *latents;      /* F32 (n, C, h, w): the scaled z */
    const featinv_tensor *maps;         /* F32 (n, C, H, W) */
    const featinv_tensor *context_data; /* F32 (L, D) or (n, L, D), in place of the prompt */
    const featinv_tensor *timesteps;    /* I64 (n), 0 to T - 1; drawn: uniform */
    const featinv_tensor *noise;        /* F32 (n, C, h, w); drawn: normal */
    const uint8_t *drop_hint;           /* n flags: the map becomes zeros */
    const uint8_t *drop_prompt;         /* n flags: the prompt becomes the empty one */
    double *losses;                     /* output: n mean squared errors, not weighted; or NULL */
} featinv_trainer_batch;

typedef struct featinv_trainer_result {
    uint32_t struct_size;
    int32_t reserved;
    int64_t step;         /* updates done, this one included */
    double loss;          /* mean over the samples of weight times squared error */
    double gradient_norm; /* before it was clipped */
    double rate;          /* of this update */
} featinv_trainer_result;

/** One update: mean squared error between the prediction at x_t = sqrt(abar) z + sqrt(1 - abar)
 *  noise and the noise (or v, as the manifest says), its gradient, AdamW. Sample weights: with
 *  snr = abar / (1 - abar), min(snr, gamma) / snr for epsilon, min(snr, gamma) / (snr + 1) for v.
 *  After a failure (COMPUTE also for a loss or gradient that is not finite; CANCELLED) weights,
 *  optimiser and step are those of the last good step. result may be NULL.
 *  With ranks: collective. Every rank gives its samples of one batch (of any count; `position` says
 *  which), and all make the update of a process that had the whole batch, but for the rounding of
 *  other orders of summation; loss and gradient_norm are the whole batch's. A failure of one rank
 *  is every rank's, and its text names the rank. Options, bundle and steps must be the same.
 *  Errors: UNSUPPORTED for images without an encoder, views without a backbone; SHAPE; VALUE;
 *  ARGUMENT. */
FEATINV_API featinv_status featinv_trainer_step(featinv_trainer_result *result,
                                                featinv_trainer *trainer,
                                                const featinv_trainer_batch *batch);

/** The loss alone, without dropout unless flags are given. What is drawn is the same at every step,
 *  and none of a training step's: losses of different steps compare. */
FEATINV_API featinv_status featinv_trainer_loss(featinv_trainer_result *result,
                                                featinv_trainer *trainer,
                                                const featinv_trainer_batch *batch);

/** Before the first step: takes the ControlNet of another bundle on an equal base, all but its hint
 *  encoder, which belongs to a backbone and layer; and of a UNet that the bundle itself holds what
 *  is trained here. path: its folder. Everything is checked first; only a file that cannot be read
 *  any more leaves the trainer half changed. Errors: ARGUMENT after a step; UNSUPPORTED where a
 *  tensor is missing or of another shape; NOT_FOUND, BUNDLE, HASH, VERSION. */
FEATINV_API featinv_status featinv_trainer_warm_start(featinv_trainer *trainer, const char *path);

/** With ranks, after the weights were changed by resume or warm_start on rank 0. Collective: every
 *  rank takes rank 0's weights, optimiser, average and step. Errors: ARGUMENT without ranks. */
FEATINV_API featinv_status featinv_trainer_share(featinv_trainer *trainer);

/** With ranks. Collective: fails on every rank unless the weights of all are the same bits, as they
 *  are where all run on machines alike; a step does not check it. Errors: COMPUTE where they
 *  differ; ARGUMENT without ranks. */
FEATINV_API featinv_status featinv_trainer_compare(featinv_trainer *trainer);

/** Updates done so far. */
FEATINV_API int64_t featinv_trainer_steps(const featinv_trainer *trainer);

/** How many tensors are trained; the name of tensor index (from 0) as in the public release
 *  (control_model.*, model.diffusion_model.*; NULL beyond the end; borrowed); its shape: *ndim
 *  extents. Errors: NOT_FOUND. */
FEATINV_API int64_t featinv_trainer_count(const featinv_trainer *trainer);
FEATINV_API const char *featinv_trainer_key(const featinv_trainer *trainer, int64_t index);
FEATINV_API featinv_status featinv_trainer_shape(int64_t shape[FEATINV_MAX_DIMS], int32_t *ndim,
                                                 const featinv_trainer *trainer, const char *key);

/** A trained tensor, F32 of its shape: its value, its moving average (UNSUPPORTED without one), its
 *  gradient in the last step (as the optimiser saw it, so after clipping; zeros before any step).
 *  Errors: NOT_FOUND, SHAPE. */
FEATINV_API featinv_status featinv_trainer_parameter(const featinv_tensor *value,
                                                     featinv_trainer *trainer, const char *key);
FEATINV_API featinv_status featinv_trainer_average(const featinv_tensor *average,
                                                   featinv_trainer *trainer, const char *key);
FEATINV_API featinv_status featinv_trainer_gradient(const featinv_tensor *gradient,
                                                    featinv_trainer *trainer, const char *key);

/** Writes weights, optimiser, average and step to one safetensors file, atomically. Errors: WRITE
 *  (an older file of that name is untouched then). */
FEATINV_API featinv_status featinv_trainer_save(featinv_trainer *trainer, const char *path);

/** Goes on from a saved file: training continues bit-equal on the same machine, device, libtorch,
 *  threads and batches. The whole file is checked first; one that is refused changes nothing.
 *  Errors: NOT_FOUND, READ, FORMAT (damaged, or another kind of file), HASH (its data changed),
 *  UNSUPPORTED (of another bundle, or trained with other options). */
FEATINV_API featinv_status featinv_trainer_resume(featinv_trainer *trainer, const char *path);

typedef struct featinv_trainer_export_options {
    uint32_t struct_size;
    featinv_dtype dtype;                /* of the trained weights: F32 (default) or F16 */
    const char *name;                   /* of the new bundle; NULL: as the session's */
    int32_t force;                      /* 1: replace an existing bundle */
    int32_t latest;                     /* 1: the last weights even where there is an average */
    const featinv_tensor *feature_mean; /* (C) F32, the channel mean of the training maps, which the
                                         * bundle takes as its features.npz where the session's has
                                         * none; NULL: no such file then */
} featinv_trainer_export_options;

FEATINV_API featinv_status
featinv_trainer_export_options_init(featinv_trainer_export_options *options, size_t size);

/** Writes a bundle: the session's, with the trained weights (their moving average, if there is
 *  one). The folder appears whole or not at all. A `base` stays referred to. Errors: WRITE (exists,
 *  cannot be written), VALUE (a weight beyond F16's range, a mean that is not finite), SHAPE, HASH,
 *  READ. */
FEATINV_API featinv_status featinv_trainer_export(featinv_trainer *trainer, const char *path,
                                                  const featinv_trainer_export_options *options);

/* ---------------------------------------------------------------- training data -------------- */

/** Image files as an endless sequence of training batches, read, decoded and augmented ahead by
 *  threads. Each epoch is a permutation of all images (seeded; position p of the sequence is place
 *  p mod count of epoch p div count), and batch k holds positions k n to k n + n - 1: no image is
 *  dropped and no batch is short, so a batch may end one epoch and begin the next (torch's
 *  drop_last does not arise), and processes r of R that take the batches step * R + r of n / R
 *  images share the batches of n. A batch depends on files, options and its index alone, never on
 *  threads, prefetch or what was asked for before. Belongs to one thread at a time. */
typedef struct featinv_dataset featinv_dataset;

typedef struct featinv_dataset_options {
    uint32_t struct_size;
    int32_t batch;                     /* n, images a batch, 1 to 65536; 8 */
    int32_t image_height, image_width; /* what the generator draws; the model's, else 256 */
    int32_t view_height, view_width;   /* what the backbone sees; the model's, else 288 */
    featinv_filter filter;             /* of the view; the model's, else BILINEAR */
    int32_t augment;                   /* 1: random crops and flips; 0: as featinv_extract */
    double crop;                 /* without augment: as in a bundle, (0, 1]; the model's, else 1 */
    double scale_min, scale_max; /* of a random crop: share of the picture's area; .08, 1 */
    double ratio_min, ratio_max; /* width over height, uniform in its logarithm; 3/4, 4/3 */
    double flip_horizontal;      /* probability; .5 */
    double flip_vertical;        /* probability; .5 */
    int32_t legacy_target;       /* 1: images made from views without antialiasing, as published */
    int32_t shuffle;             /* 0: every epoch in the order of the paths; 1 */
    int32_t threads;             /* that decode, besides the caller's; 0: one a processor */
    int32_t prefetch;            /* batches kept ready, 1 to 1024: bounds the memory; 2 */
    uint64_t seed;               /* of order, crops and flips; 100 */
    int64_t max_pixels;          /* larger pictures are problems; 0: 64 * 2^20 */
} featinv_dataset_options;

/** Fills the defaults (the paper's training and its published code), sizes from model; NULL: those
 *  of the public release. */
FEATINV_API featinv_status featinv_dataset_options_init(featinv_dataset_options *options,
                                                        size_t size, const featinv_model *model);

/** A dataset over count (1 to 2^31 - 1) PNG or JPEG files, in the caller's order; the paths are
 *  copied. No file is opened before the first batch is asked for. options NULL: the defaults.
 *  Errors: ARGUMENT, MEMORY. */
FEATINV_API featinv_status featinv_dataset_create(featinv_dataset **out, const char *const *paths,
                                                  int64_t count,
                                                  const featinv_dataset_options *options);
/** Ends the threads, whatever they are doing, within one picture each; NULL is fine. Does nothing
 *  in a child of fork(). */
FEATINV_API void featinv_dataset_destroy(featinv_dataset *dataset);

/** Batch batch_index (from 0) of the sequence. Any index may follow any other, so a training
 *  resumes anywhere; what follows the last one is being made ahead.
 *  views: U8 (n, view_height, view_width, 3), what the backbone sees before mean and std: a random
 *  part of the picture (torchvision's RandomResizedCrop: ten tries, then the largest middle of an
 *  allowed ratio), resized as featinv_image_resize does, flipped. Without augment: the shorter side
 *  resized to size / crop, the middle. images: U8 (n, image_height, image_width, 3), what the
 *  generator is to draw: the view, as flipped, resized bilinearly, antialiased; with legacy_target
 *  as published, without (half-pixel centres, rounded to bytes, which the published code leaves
 *  out). indices: n numbers of the files that were used. Each of the three may be NULL.
 *  A file that is missing, damaged, too large or unreadable is a problem: the next good one in
 *  the order of its epoch (from its end on to its start) stands in for it, cropped and flipped by
 *  the numbers of the missing one, and the file is not opened again by this dataset.
 *  Errors: SHAPE, ARGUMENT (an epoch beyond 2^32), MEMORY, FORK in a child; where no file is good,
 *  the error of the first path. A failed batch may be asked for again. */
FEATINV_API featinv_status featinv_dataset_batch(const featinv_tensor *images,
                                                 const featinv_tensor *views, int64_t *indices,
                                                 featinv_dataset *dataset, int64_t batch_index);

/** Images in an epoch, problems included: the count of paths. 0 for NULL. */
FEATINV_API int64_t featinv_dataset_size(const featinv_dataset *dataset);

/** How many files the batches given so far had to do without; each counts once, in the order in
 *  which the batches met them, whatever the threads found earlier. 0 for NULL. */
FEATINV_API int64_t featinv_dataset_problems(const featinv_dataset *dataset);
/** Text of problem i (from 0), one line that names the file, or NULL beyond the end; index: number
 *  of its path, may be NULL. Borrowed from the dataset. */
FEATINV_API const char *featinv_dataset_problem(int64_t *index, const featinv_dataset *dataset,
                                                int64_t i);

/* ---------------------------------------------------------------- report --------------------- */

/** Collects the results of a job over many images: an append-only journal while it runs, then
 *  results.json and report.html (pictures inlined, cosine under each). */
typedef struct featinv_report featinv_report;

typedef struct featinv_report_options {
    uint32_t struct_size;
    int32_t resume;       /* 1: keep what DIR/journal.jsonl of the same settings holds */
    const char *title;    /* heading of the page */
    const char *settings; /* JSON object: what must be equal for a resume; NULL: {} */
    const char *device, *dtype, *bundle_sha256, *bundle_name;
    double scale;  /* NaN: null */
    int32_t steps; /* those run; 0: null */
    int32_t samples;
    int32_t shard, shards; /* this job is part `shard` (from 0) of `shards`; 0 or 1: the whole */
} featinv_report_options;

typedef struct featinv_report_item {
    uint32_t struct_size;
    int32_t sample;    /* index of the sample, 0-based */
    const char *input; /* as given */
    uint64_t seed;
    const char *image;          /* path relative to the folder, or NULL */
    const char *reference;      /* the original at the generator's size, relative, or NULL */
    const char *spread;         /* spread picture over the samples, relative, or NULL */
    const featinv_score *score; /* NULL: unknown */
    const char *class_original, *class_sample; /* names, or NULL */
    const char *error;                         /* one line: this input failed; NULL: it did not */
} featinv_report_item;

FEATINV_API featinv_status featinv_report_options_init(featinv_report_options *options,
                                                       size_t size);
/** directory must exist. Errors: WRITE, ARGUMENT (a resume with other settings). */
FEATINV_API featinv_status featinv_report_create(featinv_report **out, const char *directory,
                                                 const featinv_report_options *options);
/** 1 if a resumed journal already holds that input and sample, 0 if not. */
FEATINV_API int32_t featinv_report_has(const featinv_report *report, const char *input,
                                       int32_t sample);
FEATINV_API featinv_status featinv_report_add(featinv_report *report,
                                              const featinv_report_item *item);
/** Ends a batch: its items go to the journal at once. A batch torn by a crash is redone whole. */
FEATINV_API featinv_status featinv_report_commit(featinv_report *report);
/** Writes results.json and report.html; seconds: wall time of the job. Items in the order of
 *  (input order of first addition, sample). Removes the journal when complete is 1. A shard's
 *  journal (journal-I-of-N.jsonl) stays, and its files also hold what the other shards of
 *  the same settings have committed in the folder so far: batch b of the whole is batch b div N of
 *  shard b mod N. */
FEATINV_API featinv_status featinv_report_write(featinv_report *report, double seconds,
                                                int32_t complete);
FEATINV_API void featinv_report_destroy(featinv_report *report);

#ifdef __cplusplus
}
#endif
#endif
