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
 *     featinv_reconstruct(&drawn, &score, session, &photo, 1, NULL);
 *     printf("cosine %.3f\n", score.cosine_median);
 *     featinv_session_destroy(session);
 *     featinv_model_release(model);
 *
 * Rules that hold everywhere
 * - Every function that can fail returns a featinv_status: 0 is success, failures are negative, and
 *   featinv_last_error() of the same thread then holds one line of text. No call aborts or exits.
 * - Results come first in the argument list. A pointer to a pointer gives you an object to release;
 *   a plain pointer that is returned is borrowed from its owner.
 * - Option structs begin with struct_size. Call their _init function with sizeof, change what you
 *   like; a NULL options argument means all defaults. Fields are only ever appended.
 * - Threads: a featinv_model is immutable and shared by threads. A featinv_session belongs to one
 *   thread at a time; featinv_session_cancel alone may come from any thread or a signal handler.
 *   The functions on images, arrays and metrics keep no state.
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

/** Result of a call: FEATINV_OK or one of the negative FEATINV_ERROR_ values, which never change. */
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
    FEATINV_ERROR_BACKEND = -30, /* the backend or its libtorch is missing, foreign or another one */
    FEATINV_ERROR_DEVICE = -31,  /* no such device */
    FEATINV_ERROR_COMPUTE = -32  /* the backend failed while computing */
};

/** "0.1.0", static storage. Never fails. */
FEATINV_API const char *featinv_version(void);

/** One line about this build: compiler, libpng, libjpeg, zlib, jansson, OpenSSL. Static storage. */
FEATINV_API const char *featinv_build_info(void);

/** The text of the last failure in this thread: one line, starts in lower case, names the offending
 *  file and value. Never NULL; empty after no failure. Valid until the thread's next failing call. */
FEATINV_API const char *featinv_last_error(void);

/** "FEATINV_ERROR_SHAPE" and so on; "unknown status" for other numbers. Static storage. */
FEATINV_API const char *featinv_status_name(featinv_status status);

/** Opens the backend now instead of at the first model call, so that a missing libtorch shows early.
 *  path: a backend file, or NULL for FEATINV_BACKEND in the environment, else libfeatinv-torch.so
 *  beside libfeatinv.so. Once open, a backend stays until the process ends; opening the same again
 *  is OK. Errors: BACKEND. */
FEATINV_API featinv_status featinv_backend_load(const char *path);

/** One line about the open backend ("libtorch 2.11.0, CUDA plug-in: none, 0 devices, 2 threads").
 *  Loads it first where needed. Writes at most capacity bytes with a terminating zero. */
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

/** A C-ordered CPU view over data. shape is borrowed. */
FEATINV_API featinv_tensor featinv_tensor_view(void *data, featinv_dtype dtype, int32_t ndim,
                                               int64_t *shape);

/** A view of a DLManagedTensor (which stays the caller's; the view borrows from it).
 *  Errors: ARGUMENT for NULL, UNSUPPORTED for another dtype or device. */
FEATINV_API featinv_status featinv_tensor_from_dlpack(featinv_tensor *out,
                                                      const void *dl_managed_tensor);

/** A new DLManagedTensor over a view. release(owner) runs when its consumer deletes it. */
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
 *  dropped, gamma and ICC ignored, EXIF orientation applied. Samples of 16 bits keep their high byte;
 *  Pillow does so for RGB but clips 16-bit grey, so there the pixels differ on purpose.
 *  pixels: capacity bytes, filled with height * width * 3; NULL asks for the size only (the header
 *  is read). max_pixels: 0 means 64 * 2^20. Errors: NOT_FOUND, READ, FORMAT, LIMIT, CAPACITY. */
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
    int32_t has_backbone, has_head, has_generator, has_encoder; /* 0 or 1 */
    const char *name;           /* from the manifest */
    const char *path;           /* the folder */
    const char *sha256;         /* of manifest.json, 64 hex digits */
    const char *backbone;       /* name, NULL without backbone */
    const char *head;           /* "linear", "layernorm-linear", "none", NULL */
    const char *layer, *layout; /* the layer the map comes from; "nchw", "nhwc", "tokens" */
    int32_t input_height, input_width; /* of the backbone, 0 without one */
    featinv_filter interpolation;
    double crop;
    const double *mean, *std; /* 3 each */
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
    int32_t threads;      /* CPU threads of the backend, process-wide; 0: its default */
    const char *device;   /* "auto" (default), "cpu", "cuda", "cuda:1" */
    featinv_dtype dtype;  /* F32 (default), BF16, F16; F16 on CUDA only */
    int32_t deterministic; /* 1: only deterministic kernels on CUDA */
    int32_t batch;        /* images or latents per forward; 0: 8 on CPU, 32 on CUDA */
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

/** Called on the caller's thread after each step: done of total units. Nonzero return cancels. */
typedef int32_t (*featinv_progress)(void *user_data, int64_t done, int64_t total);

/* ---------------------------------------------------------------- features ------------------- */

typedef struct featinv_run_options {
    uint32_t struct_size;
    int32_t reserved;
    featinv_progress progress; /* NULL: none */
    void *user_data;
    int64_t *completed; /* receives how many inputs are done, also when cancelled; may be NULL */
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
    int32_t guess_mode;      /* 1: no ControlNet in the negative branch, residual i times .825^(12-i) */
    int32_t legacy_bytes;    /* 1: truncate to bytes as published, 0: round */
    const char *context, *uncontext; /* names in contexts.npz; NULL: the bundle's */
    const featinv_tensor *context_data, *uncontext_data; /* F32 (L, D) instead of a name */
    const featinv_tensor *noise;      /* F32 (N * samples or 1, C, h, w) instead of the seed's x_T */
    const featinv_tensor *step_noise; /* F32 (steps run, N * samples, C, h, w), in the order run */
    const featinv_tensor *trace_x, *trace_x0; /* outputs, shaped like step_noise; NULL: none */
    featinv_progress progress;
    void *user_data;
    int64_t *completed; /* receives the number of samples finished, also when cancelled */
} featinv_sample_options;

/** Fills the bundle's defaults; model NULL: the library's. */
FEATINV_API featinv_status featinv_sample_options_init(featinv_sample_options *options, size_t size,
                                                       const featinv_model *model);

/** Timesteps that `steps` and `spacing` give, ascending: count of them, and the first capacity of
 *  them into timesteps (NULL: only the count). Errors: ARGUMENT (0, 1000 and up, a legacy count
 *  that overflows). */
FEATINV_API featinv_status featinv_timesteps(int32_t *timesteps, int32_t capacity, int32_t *count,
                                             int32_t steps, featinv_spacing spacing);

/** Standard normal float32 values from the counter-based generator (Philox4x32-10, docs/numerics.md):
 *  the same bits on every machine. sample: k; step 0 is x_T, i + 1 the noise of the i-th step run. */
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
    int32_t match_top1, match_top5; /* 0, 1, -1 unknown: sample's top-k holds the original's top-1 */
    double seconds;                 /* share of the call's time */
    double reserved[8];
} featinv_score;

/** Scores samples U8 (N * samples, H, W, 3) against maps F32 (N, C, H, W) and logits F32 (N,
 *  classes), or NULL: the head's, where there is one. The sample goes back as its 8-bit image, resized
 *  directly to the backbone's size. scores: N * samples. sample_maps: F32 output or NULL. */
FEATINV_API featinv_status featinv_score_samples(featinv_score *scores,
                                                 const featinv_tensor *sample_maps,
                                                 featinv_session *session,
                                                 const featinv_tensor *samples,
                                                 const featinv_tensor *maps,
                                                 const featinv_tensor *logits,
                                                 const featinv_run_options *options);

typedef struct featinv_reconstruct_options {
    uint32_t struct_size;
    int32_t reserved;
    const featinv_sample_options *sampling; /* NULL: defaults; carries progress and completed */
    const featinv_tensor *maps, *logits;    /* more outputs, each may be NULL */
    const featinv_tensor *references;       /* U8 (count, H, W, 3): the cropped inputs, generator's size */
    const featinv_tensor *latents;
    const featinv_tensor *sample_maps; /* F32 (count * samples, C, H, W) */
} featinv_reconstruct_options;

FEATINV_API featinv_status featinv_reconstruct_options_init(featinv_reconstruct_options *options,
                                                            size_t size,
                                                            const featinv_model *model);

/** Images → maps → images and scores: extract, sample, score. images: U8 (count * samples, H, W, 3);
 *  scores: count * samples, or NULL. */
FEATINV_API featinv_status featinv_reconstruct(const featinv_tensor *images, featinv_score *scores,
                                               featinv_session *session,
                                               const featinv_image *photos, int64_t count,
                                               const featinv_reconstruct_options *options);

/* ---------------------------------------------------------------- parts ---------------------- */

typedef struct featinv_denoise_options {
    uint32_t struct_size;
    int32_t strength_count;   /* number of strengths; 0: all 1 */
    const double *strengths;  /* one per residual, encoder blocks in order, middle block last */
    int32_t no_control;       /* 1: the ControlNet is not run */
    int32_t residual_count;   /* number of residual outputs below */
    const featinv_tensor *hint;      /* output: encoded hint (B, M, h, w), or NULL */
    const featinv_tensor *residuals; /* outputs: residual_count tensors, unscaled, or NULL */
} featinv_denoise_options;

FEATINV_API featinv_status featinv_denoise_options_init(featinv_denoise_options *options,
                                                        size_t size);

/** One evaluation of the denoiser: x_t F32 (B, C, h, w), t I64 (B), context F32 (B, L, D), map F32
 *  (B, C, H, W) → prediction F32 (B, C, h, w) (ε or v, as the manifest says). prediction may be NULL
 *  when only options->hint is wanted: then x_t, t and context may be NULL too. */
FEATINV_API featinv_status featinv_denoise(const featinv_tensor *prediction,
                                           featinv_session *session, const featinv_tensor *x_t,
                                           const featinv_tensor *t, const featinv_tensor *context,
                                           const featinv_tensor *map,
                                           const featinv_denoise_options *options);

/** Images U8 (N, H, W, 3) → posterior mean and log-variance F32 (N, C, h, w), unscaled. A latent is
 *  latent_scale * (mean + exp(logvar / 2) * noise). Either output may be NULL. */
FEATINV_API featinv_status featinv_encode(const featinv_tensor *mean, const featinv_tensor *logvar,
                                          featinv_session *session, const featinv_tensor *images,
                                          const featinv_run_options *options);

/** Scaled latents F32 (N, C, h, w) → images: U8 (N, H, W, 3), or F32 (N, 3, H, W) in about [-1, 1],
 *  not clamped. Any h, w. legacy_bytes: 1 truncates. */
FEATINV_API featinv_status featinv_decode(const featinv_tensor *images, featinv_session *session,
                                          const featinv_tensor *latents, int32_t legacy_bytes,
                                          const featinv_run_options *options);

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
 *  centre: (C) values removed for `centred`; NULL: a's own channel mean. per_image, per_image_centred:
 *  N medians each, or NULL. A position whose norm is zero in one map counts 0, in both 1.
 *  Errors: SHAPE, VALUE. */
FEATINV_API featinv_status featinv_cosine(featinv_cosine_result *result, double *per_image,
                                          double *per_image_centred, const featinv_tensor *a,
                                          const featinv_tensor *b, const float *centre);

/** Spread of samples (paper, section 4: what varies is what the backbone ignores): per-pixel standard
 *  deviation over samples U8 (S, H, W, 3), root mean square over channels, in levels of 0 to 255.
 *  spread: H * W values. */
FEATINV_API featinv_status featinv_spread(float *spread, const featinv_tensor *samples);

/** Fréchet distance of two sets of feature rows; rows are kept as float32, the result is computed in
 *  float64 with n - 1 covariances and no ridge. Name the features it was computed on: this is
 *  the "FID" only for Inception features. */
typedef struct featinv_fid featinv_fid;
FEATINV_API featinv_status featinv_fid_create(featinv_fid **out, int64_t dimension);
/** side 0 or 1; rows F32 (n, d), or maps (n, d, H, W), which are pooled. first_index: position of row
 *  0 in the whole set, so that sharded updates in any order give the same result; -1 appends. */
FEATINV_API featinv_status featinv_fid_update(featinv_fid *fid, int32_t side,
                                              const featinv_tensor *rows, int64_t first_index);
/** Takes over the rows of another accumulator of the same dimension. */
FEATINV_API featinv_status featinv_fid_merge(featinv_fid *fid, const featinv_fid *other);
/** session: any, also one without a model. Errors: ARGUMENT for fewer than 2 rows a side. */
FEATINV_API featinv_status featinv_fid_result(double *distance, const featinv_fid *fid,
                                              featinv_session *session);
FEATINV_API void featinv_fid_destroy(featinv_fid *fid);

/* ---------------------------------------------------------------- report --------------------- */

/** Collects the results of a job over many images: an append-only journal while it runs, then
 *  results.json and report.html (pictures inlined, cosine under each). */
typedef struct featinv_report featinv_report;

typedef struct featinv_report_options {
    uint32_t struct_size;
    int32_t resume;          /* 1: keep what DIR/journal.jsonl of the same settings holds */
    const char *title;       /* heading of the page */
    const char *settings;    /* JSON object: what must be equal for a resume; NULL: {} */
    const char *device, *dtype, *bundle_sha256, *bundle_name;
    double scale;            /* NaN: null */
    int32_t steps;           /* those run; 0: null */
    int32_t samples;
    int32_t shard, shards;   /* this job is part `shard` (from 0) of `shards`; 0 or 1: the whole */
} featinv_report_options;

typedef struct featinv_report_item {
    uint32_t struct_size;
    int32_t sample;            /* index of the sample, 0-based */
    const char *input;         /* as given */
    uint64_t seed;
    const char *image;         /* path relative to the folder, or NULL */
    const char *reference;     /* the original at the generator's size, relative, or NULL */
    const char *spread;        /* spread picture over the samples, relative, or NULL */
    const featinv_score *score; /* NULL: unknown */
    const char *class_original, *class_sample; /* names, or NULL */
    const char *error;         /* one line: this input failed; NULL: it did not */
} featinv_report_item;

FEATINV_API featinv_status featinv_report_options_init(featinv_report_options *options, size_t size);
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
 *  (input order of first addition, sample). Removes the journal when complete is 1. A shard's journal
 *  (journal-I-of-N.jsonl) stays, and its files also hold what the other shards of the same settings
 *  have committed in the folder so far: batch b of the whole is batch b div N of shard b mod N. */
FEATINV_API featinv_status featinv_report_write(featinv_report *report, double seconds,
                                                int32_t complete);
FEATINV_API void featinv_report_destroy(featinv_report *report);

#ifdef __cplusplus
}
#endif
#endif
