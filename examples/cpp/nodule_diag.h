/* nodule-diag in C and C++: a CT in Hounsfield units and a position in, the diagnosis out.
 *
 * One header, one source file, on the fused graph (`nodule-diag export fused`) and ONNX Runtime. docs/cpp.md describes it.
 * The C functions are the library's boundary: handles are opaque, every call returns a status, no exception leaves it.
 * The C++ classes at the end of this file are a thin cover over them.
 *
 * Threads: a model and a CT may be used by any number of threads at once, and closed when none uses them any more.
 * For research. Not a medical device; not for diagnosis or treatment.
 */
#ifndef NODULE_DIAG_H
#define NODULE_DIAG_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(NODULE_DIAG_BUILDING)
#define ND_API __declspec(dllexport)
#elif defined(_WIN32)
#define ND_API __declspec(dllimport)
#else
#define ND_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call returns. nd_error_code() says more exactly what, in the SDK's own codes. */
typedef int32_t nd_status;
enum {
    ND_OK = 0,
    ND_UNFORESEEN = 1,   /* also: out of memory */
    ND_USAGE = 2,        /* a null pointer, a number that means nothing */
    ND_CT = 3,           /* the CT or the position was refused */
    ND_MODEL = 4,        /* the file is no fused graph, or damaged */
    ND_RUNTIME = 5       /* ONNX Runtime failed */
};

enum { ND_GRID = 16, ND_CELLS = ND_GRID * ND_GRID * ND_GRID };

/* What hu holds. */
enum { ND_INT16 = 0, ND_FLOAT32 = 1 };

/* What the user of a diagnosis must know: bits of nd_diagnosis.warnings; nd_warning_text() has the words. */
enum {
    ND_WARN_THICK_SLICES = 1,
    ND_WARN_TURNED = 2,
    ND_WARN_CUBE_OUTSIDE = 4,
    ND_WARN_NO_NODULE = 8,
    ND_WARN_NOTHING_SEGMENTED = 16,
    ND_WARN_OFF_CENTRE = 32,
    ND_WARN_TOUCHES_EDGE = 64
};

typedef struct nd_model nd_model;
typedef struct nd_ct nd_ct;

/* A CT as it lies in memory. Millimetres and directions are LPS: x to the patient's left, y to posterior, z to superior. */
typedef struct nd_volume {
    const void *hu;             /* rescaled (slope and intercept applied); the first axis of size is the fastest */
    const uint8_t *lung_mask;   /* same grid, 0 is outside the lungs; only for models that ask for it, else NULL */
    int64_t size[3];            /* voxels along each stored axis */
    double spacing_mm[3];       /* along each stored axis */
    double origin_mm[3];        /* the centre of the first stored voxel */
    double direction[9];        /* 3 x 3, row by row; column i is where stored axis i runs to */
    int32_t hu_type;            /* ND_INT16 or ND_FLOAT32 */
    int32_t reserved;           /* 0 */
} nd_volume;

/* What the model says about one nodule. Maps are z, y, x, in cells of 2 mm; their axes are the columns of axes. */
typedef struct nd_diagnosis {
    double position_mm[3];      /* LPS; also the centre of both maps */
    double axes[9];             /* 3 x 3, row by row; column i: where the maps' axis x, y, z runs to, LPS */
    double malignancy;          /* P, 0 to 1, for benign and malignant equally likely; calibrated where the model says how */
    double logit;               /* S of eq. 4, not calibrated */
    double expert_score;        /* 1 to 5 */
    double presence;            /* how likely there is a nodule, 0 to 1; NaN where the model cannot tell */
    double cam_nodule;          /* eq. 8: mean of the CAM on the nodule */
    double cam_background;      /* eq. 9: and elsewhere */
    double volume_mm3;          /* of the segmented nodule */
    double diameter_mm;         /* of the sphere of that volume */
    float segmentation[ND_CELLS];
    float cam[ND_CELLS];
    uint32_t warnings;
    uint32_t reserved;
} nd_diagnosis;

/* Loads a fused graph. threads: of one call; 0 leaves it to ONNX Runtime. path is UTF-8. */
ND_API nd_status nd_model_open(const char *path, int32_t threads, nd_model **model);
/* The same from memory, which is not needed afterwards. */
ND_API nd_status nd_model_from_bytes(const void *data, size_t size, int32_t threads, nd_model **model);
/* What the file says of itself (docs/fused-graph.md), such as "name"; NULL where it says nothing. Lives as long as the model. */
ND_API const char *nd_model_says(const nd_model *model, const char *key);
ND_API void nd_model_close(nd_model *model);

/* Checks a CT, all of its voxels. They are not copied: hu and lung_mask must stay as they are until nd_ct_close. */
ND_API nd_status nd_ct_open(const nd_volume *volume, nd_ct **ct);
ND_API void nd_ct_close(nd_ct *ct);

/* Diagnoses the nodule at a position in LPS mm. */
ND_API nd_status nd_predict(const nd_model *model, const nd_ct *ct, const double position_mm[3], nd_diagnosis *diagnosis);

/* Of this thread's last call that returned a status: "ct-not-finite" and such, "" after ND_OK; and what is wrong, in words. */
ND_API const char *nd_error_code(void);
ND_API const char *nd_error_message(void);
/* What one bit of nd_diagnosis.warnings means; "" for a bit that means nothing. */
ND_API const char *nd_warning_text(uint32_t bit);

#ifdef __cplusplus
} /* extern "C" */

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

namespace nodule_diag {

/* Thrown by the classes below. */
class Error : public std::runtime_error {
public:
    Error(nd_status status, std::string code, const std::string &message)
        : std::runtime_error(message), status(status), code(std::move(code)) {}
    nd_status status;
    std::string code;
};

inline void require(nd_status status) {
    if (status != ND_OK) throw Error(status, nd_error_code(), nd_error_message());
}

/* A checked CT; the voxels stay the caller's. */
class CT {
public:
    explicit CT(const nd_volume &volume) : handle_(open(volume)) {}
    const nd_ct *handle() const noexcept { return handle_.get(); }

private:
    struct Close {
        void operator()(nd_ct *ct) const noexcept { nd_ct_close(ct); }
    };
    static nd_ct *open(const nd_volume &volume) {
        nd_ct *ct = nullptr;
        require(nd_ct_open(&volume, &ct));
        return ct;
    }
    std::unique_ptr<nd_ct, Close> handle_;
};

/* A fused graph, ready to answer. */
class Model {
public:
    explicit Model(const std::string &path, int threads = 0) : handle_(open(path, threads)) {}
    nd_diagnosis predict(const CT &ct, const std::array<double, 3> &position_mm) const {
        nd_diagnosis diagnosis;
        require(nd_predict(handle_.get(), ct.handle(), position_mm.data(), &diagnosis));
        return diagnosis;
    }
    std::string says(const std::string &key) const {
        const char *value = nd_model_says(handle_.get(), key.c_str());
        return value ? value : "";
    }

private:
    struct Close {
        void operator()(nd_model *model) const noexcept { nd_model_close(model); }
    };
    static nd_model *open(const std::string &path, int threads) {
        nd_model *model = nullptr;
        require(nd_model_open(path.c_str(), threads, &model));
        return model;
    }
    std::unique_ptr<nd_model, Close> handle_;
};

} // namespace nodule_diag
#endif /* __cplusplus */
#endif /* NODULE_DIAG_H */
