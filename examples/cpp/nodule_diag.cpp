// See nodule_diag.h. What is computed here is what nodule_diag's ct, preprocessing and results compute in Python; the
// numbers and their reasons stand there. Over 300 lines: a vendor takes one source file, and finds all of it here.
#define NODULE_DIAG_BUILDING
#include "nodule_diag.h"

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <locale>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>
#include <type_traits>
#include <vector>

namespace {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<Vec3, 3>; // rows

constexpr const char *CONTRACT = "nodule-diag/fused/1";
constexpr int PATCH = 64, GRID = ND_GRID, SUB = 4, FINE = GRID * SUB;
constexpr double PATCH_MM = 0.5, GRID_MM = 2.0, FINE_MM = GRID_MM / SUB, PI = 3.14159265358979323846;
constexpr int64_t MAX_VOXELS = int64_t(1) << 31;
constexpr double MIN_SPACING_MM = 0.05, MAX_SPACING_MM = 5.0 + 5e-4, WARN_SPACING_MM = 3.0 + 5e-4;
constexpr double SHEAR = 1e-3, SNAP = 1e-6, WARN_TURN_DEG = 5.0, BORDER_SLACK = 1e-6, EDGE_SLACK = 1e-3;
constexpr float HIGHEST_HU = 32767, LOWEST_HU = -40960;
constexpr double OFF_CENTRE_MM = 5.0, CUBE_OUTSIDE = 0.1, PRESENCE_REACH_MM = 4.0, LEAST_SHARE = 1e-6, ROUNDING = 1e-4;
constexpr int REACH = 16; // of the spline's prefilter, in samples

// ---- errors: exceptions inside, a status and two texts outside -----------------------------------------------------

thread_local char last_code[64] = "", last_message[1024] = "";

class Refusal : public std::exception {
public:
    Refusal(nd_status status, const char *code, const char *format, ...)
#if defined(__GNUC__)
        __attribute__((format(printf, 4, 5)))
#endif
        ;
    const char *what() const noexcept override { return text_; }
    nd_status status;
    const char *code;

private:
    char text_[1024];
};

Refusal::Refusal(nd_status status, const char *code, const char *format, ...) : status(status), code(code) {
    va_list words;
    va_start(words, format);
    std::vsnprintf(text_, sizeof text_, format, words);
    va_end(words);
}

nd_status said(nd_status status, const char *code, const char *message) noexcept {
    std::snprintf(last_code, sizeof last_code, "%s", code);
    std::snprintf(last_message, sizeof last_message, "%s", message);
    return status;
}

template <class Work> nd_status guarded(Work &&work) noexcept {
    try {
        work();
        return said(ND_OK, "", "");
    } catch (const Refusal &error) {
        return said(error.status, error.code, error.what());
    } catch (const Ort::Exception &error) {
        return said(ND_RUNTIME, "inference-failed", error.what());
    } catch (const std::bad_alloc &) {
        return said(ND_UNFORESEEN, "out-of-memory", "there is not enough memory");
    } catch (const std::exception &error) {
        return said(ND_UNFORESEEN, "unforeseen", error.what());
    } catch (...) {
        return said(ND_UNFORESEEN, "unforeseen", "an exception of no known kind");
    }
}

template <class Pointer> void require_given(Pointer pointer, const char *name) {
    if (!pointer) throw Refusal(ND_USAGE, "usage", "%s is a null pointer", name);
}

// ---- geometry -------------------------------------------------------------------------------------------------------

double dot(const Vec3 &a, const Vec3 &b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vec3 column(const Mat3 &m, int i) { return {m[0][i], m[1][i], m[2][i]}; }

Vec3 cross(const Vec3 &a, const Vec3 &b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// Rounds a matrix whose every element is within SNAP of a whole number: axes parallel to the patient's stay exact.
void snap(Mat3 &m) {
    Mat3 nearest = m;
    double worst = 0;
    for (int r = 0; r < 3; ++r)
        for (int c = 0; c < 3; ++c) {
            nearest[r][c] = std::rint(m[r][c]) + 0.0;
            worst = std::max(worst, std::abs(m[r][c] - nearest[r][c]));
        }
    if (worst < SNAP) m = nearest;
}

// The nearest orthonormal matrix (Newton's iteration for the polar decomposition), of axes that meet at right angles.
Mat3 orthonormal(const double given[9]) {
    Mat3 m;
    for (int i = 0; i < 9; ++i) {
        m[i / 3][i % 3] = given[i];
        if (!std::isfinite(given[i])) throw Refusal(ND_CT, "ct-damaged", "the direction holds a number that is not finite");
    }
    for (int c = 0; c < 3; ++c) {
        const Vec3 axis = column(m, c);
        const double length = std::hypot(axis[0], axis[1], axis[2]);
        if (!(length > 0) || !std::isfinite(length)) throw Refusal(ND_CT, "ct-damaged", "the CT's axes do not span space");
        for (int r = 0; r < 3; ++r) m[r][c] /= length;
    }
    for (int a = 0; a < 3; ++a)
        for (int b = a + 1; b < 3; ++b) {
            const double cosine = std::abs(dot(column(m, a), column(m, b)));
            if (cosine > SHEAR)
                throw Refusal(ND_CT, "ct-sheared", "stored axes %d and %d meet at %.2f degrees instead of 90", a, b,
                              std::acos(std::min(cosine, 1.0)) * 180 / PI);
        }
    for (int step = 0; step < 8; ++step) { // the axes are within 0.1 degrees of orthonormal: it converges in three
        const Vec3 x = m[0], y = m[1], z = m[2];
        const double determinant = dot(x, cross(y, z));
        const Mat3 inverse_transposed = {cross(y, z), cross(z, x), cross(x, y)};
        for (int r = 0; r < 3; ++r)
            for (int c = 0; c < 3; ++c) m[r][c] = 0.5 * (m[r][c] + inverse_transposed[r][c] / determinant);
    }
    snap(m);
    return m;
}

// ---- the CT -----------------------------------------------------------------------------------------------------------

template <class Hu> void check_voxels(const Hu *hu, const std::array<int64_t, 3> &size) {
    const int64_t plane = size[0] * size[1], count = plane * size[2];
    Hu low = hu[0], high = hu[0];
    bool finite = true;
    for (int64_t start = 0; start < count; start += plane) { // a slice at a time: a loop that compilers make vectors of
        Hu least = low, most = high;
        bool good = true;
        for (int64_t i = start; i < start + plane; ++i) {
            least = hu[i] < least ? hu[i] : least;
            most = hu[i] > most ? hu[i] : most;
            if constexpr (std::is_floating_point_v<Hu>) good &= std::abs(hu[i]) <= FLT_MAX;
        }
        low = least, high = most, finite &= good;
        if (finite) continue;
        const int64_t at = std::find_if(hu + start, hu + start + plane, [](Hu v) { return !std::isfinite(float(v)); }) - hu;
        throw Refusal(ND_CT, "ct-not-finite", "the voxel at stored index (%lld, %lld, %lld) is not a finite number",
                      (long long)(at % size[0]), (long long)(at % plane / size[0]), (long long)(at / plane));
    }
    int64_t counted = 0, air = 0, tissue = 0, dense = 0; // of every 16th voxel
    for (int64_t z = 0; z < size[2]; ++z)
        for (int64_t y = 0; y < size[1]; y += 4)
            for (int64_t x = 0; x < size[0]; x += 4, ++counted) {
                const float value = float(hu[z * plane + y * size[0] + x]);
                air += value >= -1024 && value < -500;
                dense += value > 4095;
                tissue += value > -200 && value <= 4095;
            }
    const char *why = float(high) > HIGHEST_HU || float(low) < LOWEST_HU ? "beyond -40960 to 32767"
                      : air < 1e-3 * double(counted)                     ? "no air or lung below -500"
                      : tissue < 1e-3 * double(counted)                  ? "no tissue above -200"
                      : dense > 1e-2 * double(counted)                   ? "more than 1 % above 4095"
                                                                         : nullptr;
    if (why)
        throw Refusal(ND_CT, "ct-not-hu", "the CT is not in Hounsfield units: its values run from %g to %g, %s",
                      double(low), double(high), why);
}

} // namespace

// A checked CT on canonical axes: x to the left, y to posterior, z to superior. Voxels stay where the caller has them.
struct nd_ct {
    const void *hu;
    const uint8_t *lung_mask;
    int32_t hu_type;
    std::array<int64_t, 3> size, stride; // stride: from a voxel to the next along each canonical axis
    int64_t first;                       // where canonical voxel (0, 0, 0) lies
    Vec3 spacing, origin;
    Mat3 direction;
    uint32_t warnings = 0;

    explicit nd_ct(const nd_volume &volume) : hu(volume.hu), lung_mask(volume.lung_mask), hu_type(volume.hu_type) {
        require_given(hu, "hu");
        if (hu_type != ND_INT16 && hu_type != ND_FLOAT32)
            throw Refusal(ND_USAGE, "usage", "hu_type is %d; use ND_INT16 or ND_FLOAT32", int(hu_type));
        const std::array<int64_t, 3> stored = {volume.size[0], volume.size[1], volume.size[2]};
        int64_t count = 1;
        for (int64_t n : stored) {
            if (n < 2) throw Refusal(ND_CT, "ct-not-3d", "a CT has at least 2 voxels along each axis, this one %lld", (long long)n);
            if (n > MAX_VOXELS / count)
                throw Refusal(ND_CT, "ct-too-large", "%lld x %lld x %lld voxels are more than a chest CT has",
                              (long long)stored[0], (long long)stored[1], (long long)stored[2]);
            count *= n;
        }
        for (int i = 0; i < 3; ++i) {
            const double mm = volume.spacing_mm[i];
            if (!(mm >= MIN_SPACING_MM) || !std::isfinite(mm))
                throw Refusal(ND_CT, "ct-bad-spacing", "a voxel spacing of %g mm; it must be at least %g mm", mm, MIN_SPACING_MM);
            if (mm > MAX_SPACING_MM)
                throw Refusal(ND_CT, "ct-slice-spacing", "a slice spacing of %g mm; at most 5 mm can be diagnosed from", mm);
            if (!std::isfinite(volume.origin_mm[i])) throw Refusal(ND_CT, "ct-damaged", "the origin is not a finite number");
            if (mm > WARN_SPACING_MM) warnings |= ND_WARN_THICK_SLICES;
        }
        place(volume, stored, orthonormal(volume.direction));
        hu_type == ND_INT16 ? check_voxels(static_cast<const int16_t *>(hu), stored)
                            : check_voxels(static_cast<const float *>(hu), stored);
    }

    // Continuous canonical index of a point.
    Vec3 index(const Vec3 &point) const {
        const Vec3 offset = {point[0] - origin[0], point[1] - origin[1], point[2] - origin[2]};
        Vec3 at;
        for (int i = 0; i < 3; ++i) at[i] = dot(offset, column(direction, i)) / spacing[i];
        return at;
    }

private:
    void place(const nd_volume &volume, const std::array<int64_t, 3> &stored, const Mat3 &axes) {
        std::array<int, 3> order = {0, 1, 2}, best = order;
        double most = -1;
        do { // for x, y, z: the stored axis that runs closest along it, each stored axis once
            const double trace = std::abs(axes[0][order[0]]) + std::abs(axes[1][order[1]]) + std::abs(axes[2][order[2]]);
            if (trace > most) most = trace, best = order;
        } while (std::next_permutation(order.begin(), order.end()));
        const std::array<int64_t, 3> step = {1, stored[0], stored[0] * stored[1]};
        first = 0;
        origin = {volume.origin_mm[0], volume.origin_mm[1], volume.origin_mm[2]};
        for (int i = 0; i < 3; ++i) {
            const int from = best[i];
            const bool flipped = axes[i][from] < 0;
            size[i] = stored[from], spacing[i] = volume.spacing_mm[from];
            stride[i] = flipped ? -step[from] : step[from];
            if (flipped) first += step[from] * (size[i] - 1);
            for (int r = 0; r < 3; ++r) {
                if (flipped) origin[r] += axes[r][from] * spacing[i] * double(size[i] - 1);
                direction[r][i] = flipped ? -axes[r][from] : axes[r][from];
            }
        }
        snap(direction);
        const double cosine = (direction[0][0] + direction[1][1] + direction[2][2] - 1) / 2;
        if (std::acos(std::clamp(cosine, -1.0, 1.0)) * 180 / PI > WARN_TURN_DEG) warnings |= ND_WARN_TURNED;
    }
};

namespace {

// ---- the spline, as one matrix an axis (docs/fused-graph.md) ----------------------------------------------------------

struct Axis {
    int64_t first = 0, count = 0; // the voxels that have any weight
    std::vector<float> weights;   // (64, count)
    double inside = 0;            // share of the cube's 64 planes that lie in the volume
};

int64_t mirrored(int64_t index, int64_t size) {
    const int64_t period = 2 * (size - 1);
    const int64_t folded = ((index % period) + period) % period;
    return std::min(folded, period - folded);
}

Axis resampling(int64_t size, double center, double spacing) {
    std::array<double, 2 * REACH + 1> response;
    for (int k = -REACH; k <= REACH; ++k) response[k + REACH] = std::sqrt(3.0) * std::pow(std::sqrt(3.0) - 2.0, std::abs(k));
    const double sum = std::accumulate(response.begin(), response.end(), 0.0);
    std::vector<double> full(size_t(PATCH * size), 0.0);
    Axis axis;
    for (int m = 0; m < PATCH; ++m) {
        const double at = center + (m - 31.5) * PATCH_MM / spacing;
        const double rounded = std::rint(at * 1e6) / 1e6; // one on the border is inside
        axis.inside += rounded >= -0.5 && rounded <= double(size) - 0.5;
        if (at < -0.5 - EDGE_SLACK || at > double(size) - 0.5 + EDGE_SLACK) continue;
        const double floor = std::floor(at), f = at - floor, g = 1 - f;
        const double spline[4] = {g * g * g / 6, (3 * f * f * f - 6 * f * f + 4) / 6, (3 * g * g * g - 6 * g * g + 4) / 6,
                                  f * f * f / 6};
        for (int tap = 0; tap < 4; ++tap)
            for (int k = -REACH; k <= REACH; ++k)
                full[size_t(m * size + mirrored(int64_t(floor) - 1 + tap + k, size))] += spline[tap] * response[k + REACH] / sum;
    }
    axis.inside /= PATCH;
    int64_t low = size, high = -1;
    for (int64_t m = 0; m < PATCH; ++m)
        for (int64_t i = 0; i < size; ++i)
            if (float(full[size_t(m * size + i)]) != 0.0F) low = std::min(low, i), high = std::max(high, i);
    if (high < 0) low = high = 0; // a cube that misses every voxel of a thin slab: one voxel without weight
    axis.first = low, axis.count = high - low + 1;
    for (int64_t m = 0; m < PATCH; ++m)
        for (int64_t i = low; i <= high; ++i) axis.weights.push_back(float(full[size_t(m * size + i)]));
    return axis;
}

// The region of a volume that the three axes name, on canonical axes, x fastest.
template <class From, class To> std::vector<To> region(const From *stored, const nd_ct &ct, const std::array<Axis, 3> &xyz) {
    std::vector<To> values;
    values.reserve(size_t(xyz[0].count * xyz[1].count * xyz[2].count));
    for (int64_t z = 0; z < xyz[2].count; ++z)
        for (int64_t y = 0; y < xyz[1].count; ++y) {
            const From *voxel = stored + ct.first + (xyz[2].first + z) * ct.stride[2] + (xyz[1].first + y) * ct.stride[1] +
                                xyz[0].first * ct.stride[0];
            for (int64_t x = 0; x < xyz[0].count; ++x) values.push_back(To(voxel[x * ct.stride[0]]));
        }
    return values;
}

// ---- what is made of the answers ----------------------------------------------------------------------------------------

double sigmoid(double value) { return 0.5 + 0.5 * std::tanh(0.5 * value); }

double weighted_mean(const float *values, const float *segmentation, bool background) {
    double sum = 0, total = 0;
    for (int i = 0; i < ND_CELLS; ++i) {
        const double weight = background ? 1.0 - double(segmentation[i]) : double(segmentation[i]);
        sum += double(values[i]) * weight, total += weight;
    }
    return total > 0 ? std::clamp(sum / total, 0.0, 1.0) : 0.0;
}

// The log-odds of the share of the map round its centre that is nodule.
double presence_evidence(const float *segmentation) {
    double weight[GRID], sum = 0, total = 0;
    for (int i = 0; i < GRID; ++i) {
        const double mm = (i - (GRID - 1) / 2.0) * GRID_MM;
        weight[i] = std::exp(-mm * mm / (2 * PRESENCE_REACH_MM * PRESENCE_REACH_MM));
    }
    for (int z = 0, i = 0; z < GRID; ++z)
        for (int y = 0; y < GRID; ++y)
            for (int x = 0; x < GRID; ++x, ++i) {
                const double w = weight[z] * weight[y] * weight[x];
                sum += w * double(segmentation[i]), total += w;
            }
    const double share = std::clamp(sum / total, LEAST_SHARE, 1 - LEAST_SHARE);
    return std::log(share / (1 - share));
}

// The map interpolated to 0.5 mm and cut at the threshold; of that, the 6-connected part nearest to the centre.
void measure(nd_diagnosis &diagnosis, float threshold) {
    struct Tap {
        int cell, next;
        float low, high;
    };
    std::array<Tap, FINE> taps;
    for (int i = 0; i < FINE; ++i) {
        const double cell = std::clamp((i + 0.5) / SUB - 0.5, 0.0, GRID - 1.0);
        const int lower = std::min(int(cell), GRID - 2);
        taps[i] = {lower, lower + 1, float(1 - (cell - lower)), float(cell - lower)};
    }
    const auto along = [](const Tap &tap, const float *values, int step) {
        return tap.low * values[tap.cell * step] + tap.high * values[tap.next * step];
    };
    std::vector<uint8_t> open(size_t(FINE) * FINE * FINE);
    std::vector<float> plane(GRID * GRID), line(GRID);
    double nearest = std::numeric_limits<double>::infinity();
    size_t seed = 0, i = 0;
    for (int z = 0; z < FINE; ++z) {
        for (int cell = 0; cell < GRID * GRID; ++cell) plane[cell] = along(taps[z], diagnosis.segmentation + cell, GRID * GRID);
        for (int y = 0; y < FINE; ++y) {
            for (int cell = 0; cell < GRID; ++cell) line[cell] = along(taps[y], plane.data() + cell, GRID);
            for (int x = 0; x < FINE; ++x, ++i) {
                open[i] = along(taps[x], line.data(), 1) >= threshold;
                if (!open[i]) continue;
                const double mm = FINE_MM * std::hypot(x - 31.5, y - 31.5, z - 31.5);
                if (mm < nearest) nearest = mm, seed = i;
            }
        }
    }
    diagnosis.volume_mm3 = diagnosis.diameter_mm = 0;
    if (!std::isfinite(nearest)) {
        diagnosis.warnings |= ND_WARN_NOTHING_SEGMENTED;
        return;
    }
    if (nearest > OFF_CENTRE_MM) diagnosis.warnings |= ND_WARN_OFF_CENTRE;
    std::vector<size_t> todo = {seed};
    open[seed] = 0;
    size_t count = 0;
    while (!todo.empty()) {
        const size_t at = todo.back();
        todo.pop_back();
        ++count;
        const size_t step[3] = {1, FINE, size_t(FINE) * FINE};
        for (int axis = 0; axis < 3; ++axis) {
            const size_t place = at / step[axis] % FINE;
            if (place == 0 || place == FINE - 1) diagnosis.warnings |= ND_WARN_TOUCHES_EDGE;
            const auto visit = [&](size_t neighbour) {
                if (open[neighbour]) open[neighbour] = 0, todo.push_back(neighbour);
            };
            if (place > 0) visit(at - step[axis]);
            if (place < FINE - 1) visit(at + step[axis]);
        }
    }
    diagnosis.volume_mm3 = double(count) * FINE_MM * FINE_MM * FINE_MM;
    diagnosis.diameter_mm = std::cbrt(6 * diagnosis.volume_mm3 / PI);
}

// ---- ONNX Runtime -----------------------------------------------------------------------------------------------------

// One environment a process. On Linux ONNX Runtime reports to its makers unless this is said before; a host that has
// made an environment of its own before has decided for itself.
Ort::Env &environment() {
    static Ort::Env env = [] {
#if defined(_WIN32)
        _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
        setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
        Ort::Env made(ORT_LOGGING_LEVEL_FATAL, "nodule-diag");
        made.DisableTelemetryEvents();
        return made;
    }();
    return env;
}

std::vector<char> read_file(const char *path) {
    const std::filesystem::path name = std::filesystem::u8path(path);
    std::ifstream file(name, std::ios::binary);
    std::error_code failed;
    const auto size = std::filesystem::file_size(name, failed);
    std::vector<char> data(failed ? 0 : size_t(size));
    if (failed || !file.read(data.data(), std::streamsize(data.size())))
        throw Refusal(ND_MODEL, "bundle-missing", "the model %s cannot be read", path);
    return data;
}

} // namespace

struct nd_model {
    mutable Ort::Session session{nullptr}; // Run is not const, and may be called by many threads all the same
    std::map<std::string, std::string> said;
    bool masked = false;
    ONNXTensorElementDataType hu_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    double threshold = 0.5;                            // of the segmentation
    std::optional<std::array<double, 2>> calibration; // slope, intercept
    std::optional<std::array<double, 3>> presence;    // scale, shift, warn below

    nd_model(const void *data, size_t size, int32_t threads) {
        if (threads < 0) throw Refusal(ND_USAGE, "usage", "threads is %d; give 1 or more, or 0", int(threads));
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetInterOpNumThreads(1);
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        options.AddConfigEntry("session.load_model_format", "ONNX");
        options.AddConfigEntry("session.force_spinning_stop", "1"); // between calls the cores are the host's
        // A graph whose weights lie in other files finds none where no folder is.
        options.AddConfigEntry("session.model_external_initializers_file_folder_path", "/dev/null");
        try {
            session = Ort::Session(environment(), data, size, options);
        } catch (const Ort::Exception &error) {
            throw Refusal(ND_MODEL, "bundle-model-unreadable", "ONNX Runtime cannot load the model: %.400s", error.what());
        }
        Ort::AllocatorWithDefaultOptions memory;
        const Ort::ModelMetadata metadata = session.GetModelMetadata();
        for (const auto &key : metadata.GetCustomMetadataMapKeysAllocated(memory))
            said[key.get()] = metadata.LookupCustomMetadataMapAllocated(key.get(), memory).get();
        if (said["contract"] != CONTRACT)
            throw Refusal(ND_MODEL, "bundle-model-unreadable", "the model is no %s: make one with nodule-diag export fused", CONTRACT);
        for (size_t i = 0; i < session.GetInputCount(); ++i) {
            const std::string name = session.GetInputNameAllocated(i, memory).get();
            masked |= name == "lung_mask";
            if (name == "hu") hu_type = session.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetElementType();
        }
        if (said.count("segmentation_threshold")) threshold = number("segmentation_threshold");
        if (!(threshold > 0 && threshold < 1))
            throw Refusal(ND_MODEL, "bundle-model-unreadable", "the model's segmentation_threshold is %g, not between 0 and 1", threshold);
        if (said.count("calibration_slope")) calibration = {number("calibration_slope"), number("calibration_intercept")};
        if (said.count("presence_scale"))
            presence = {number("presence_scale"), number("presence_shift"), number("presence_warn_below")};
    }

    void predict(const nd_ct &ct, const Vec3 &position, nd_diagnosis &diagnosis) const;

private:
    // Of the file's metadata; the same text gives the same number whatever the host's locale is.
    double number(const char *key) const {
        const auto entry = said.find(key);
        double value = std::numeric_limits<double>::quiet_NaN();
        if (entry != said.end()) {
            std::istringstream text(entry->second);
            text.imbue(std::locale::classic());
            if (!(text >> value) || !text.eof()) value = std::numeric_limits<double>::quiet_NaN();
        }
        if (!std::isfinite(value)) throw Refusal(ND_MODEL, "bundle-model-unreadable", "the model's %s is no number", key);
        return value;
    }
};

void nd_model::predict(const nd_ct &ct, const Vec3 &position, nd_diagnosis &diagnosis) const {
    for (double mm : position)
        if (!std::isfinite(mm)) throw Refusal(ND_CT, "coordinate-not-finite", "a coordinate of the position is not a finite number");
    const Vec3 at = ct.index(position);
    for (int i = 0; i < 3; ++i)
        if (at[i] < -0.5 - BORDER_SLACK || at[i] > double(ct.size[i]) - 0.5 + BORDER_SLACK)
            throw Refusal(ND_CT, "coordinate-outside",
                          "the position (%.2f, %.2f, %.2f) mm LPS is outside the CT: its index along axis %c is %.1f of %lld",
                          position[0], position[1], position[2], "xyz"[i], at[i], (long long)ct.size[i]);
    std::array<Axis, 3> xyz;
    for (int i = 0; i < 3; ++i) xyz[i] = resampling(ct.size[i], at[i], ct.spacing[i]);

    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::array<int64_t, 4> shape = {1, xyz[2].count, xyz[1].count, xyz[0].count};
    std::vector<const char *> names = {"hu"};
    std::vector<Ort::Value> inputs;
    std::vector<float> hu;
    std::vector<int16_t> whole;
    std::vector<uint8_t> mask;
    if (hu_type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16) {
        if (ct.hu_type != ND_INT16)
            throw Refusal(ND_USAGE, "usage", "the model takes whole HU: give ND_INT16, or export it with --hu-type float32");
        whole = region<int16_t, int16_t>(static_cast<const int16_t *>(ct.hu), ct, xyz);
        inputs.push_back(Ort::Value::CreateTensor<int16_t>(memory, whole.data(), whole.size(), shape.data(), shape.size()));
    } else {
        hu = ct.hu_type == ND_INT16 ? region<int16_t, float>(static_cast<const int16_t *>(ct.hu), ct, xyz)
                                    : region<float, float>(static_cast<const float *>(ct.hu), ct, xyz);
        inputs.push_back(Ort::Value::CreateTensor<float>(memory, hu.data(), hu.size(), shape.data(), shape.size()));
    }
    if (masked) {
        if (!ct.lung_mask) throw Refusal(ND_USAGE, "usage", "the model was trained on CT x lung mask: give lung_mask");
        mask = region<uint8_t, uint8_t>(ct.lung_mask, ct, xyz);
        names.push_back("lung_mask");
        inputs.push_back(Ort::Value::CreateTensor<uint8_t>(memory, mask.data(), mask.size(), shape.data(), shape.size()));
    }
    for (int i = 2; i >= 0; --i) {
        const std::array<int64_t, 3> axis = {1, PATCH, xyz[i].count};
        names.push_back(i == 2 ? "along_z" : i == 1 ? "along_y" : "along_x");
        inputs.push_back(Ort::Value::CreateTensor<float>(memory, xyz[i].weights.data(), xyz[i].weights.size(), axis.data(), axis.size()));
    }

    struct Output {
        const char *name;
        size_t count;
        double low, high;
    };
    constexpr double FREE = std::numeric_limits<double>::infinity();
    constexpr Output OUTPUTS[] = {
        {"malignancy", 1, 0, 1}, {"logit", 1, -FREE, FREE}, {"expert_score", 1, 1, 5}, {"segmentation", ND_CELLS, 0, 1}, {"cam", ND_CELLS, 0, 1}};
    const char *wanted[] = {OUTPUTS[0].name, OUTPUTS[1].name, OUTPUTS[2].name, OUTPUTS[3].name, OUTPUTS[4].name};
    auto found = session.Run(Ort::RunOptions{nullptr}, names.data(), inputs.data(), inputs.size(), wanted, 5);
    std::array<float, 3> scalars;
    float *const targets[] = {&scalars[0], &scalars[1], &scalars[2], diagnosis.segmentation, diagnosis.cam};
    for (size_t i = 0; i < 5; ++i) {
        const Output &output = OUTPUTS[i];
        if (found[i].GetTensorTypeAndShapeInfo().GetElementCount() != output.count)
            throw Refusal(ND_RUNTIME, "output-shape", "the network's %s has another shape than expected", output.name);
        const float *values = found[i].GetTensorData<float>();
        for (size_t cell = 0; cell < output.count; ++cell) {
            const double value = values[cell];
            if (!std::isfinite(value)) throw Refusal(ND_RUNTIME, "output-not-finite", "the network's %s is not a finite number", output.name);
            if (value < output.low - ROUNDING || value > output.high + ROUNDING)
                throw Refusal(ND_RUNTIME, "output-range", "the network's %s is %g; it lies between %g and %g", output.name, value, output.low, output.high);
            targets[i][cell] = float(std::clamp(value, output.low, output.high));
        }
    }

    for (int i = 0; i < 3; ++i) diagnosis.position_mm[i] = position[i];
    for (int i = 0; i < 9; ++i) diagnosis.axes[i] = ct.direction[i / 3][i % 3];
    diagnosis.warnings = ct.warnings;
    diagnosis.logit = scalars[1], diagnosis.expert_score = scalars[2];
    diagnosis.malignancy = calibration ? sigmoid((*calibration)[0] * diagnosis.logit + (*calibration)[1]) : double(scalars[0]);
    diagnosis.cam_nodule = weighted_mean(diagnosis.cam, diagnosis.segmentation, false);
    diagnosis.cam_background = weighted_mean(diagnosis.cam, diagnosis.segmentation, true);
    diagnosis.presence = std::numeric_limits<double>::quiet_NaN();
    if (presence) diagnosis.presence = sigmoid((*presence)[0] * presence_evidence(diagnosis.segmentation) + (*presence)[1]);
    if (presence && diagnosis.presence < (*presence)[2]) diagnosis.warnings |= ND_WARN_NO_NODULE;
    if (1 - xyz[0].inside * xyz[1].inside * xyz[2].inside > CUBE_OUTSIDE) diagnosis.warnings |= ND_WARN_CUBE_OUTSIDE;
    measure(diagnosis, float(threshold));
}

// ---- the boundary -------------------------------------------------------------------------------------------------------

nd_status nd_model_from_bytes(const void *data, size_t size, int32_t threads, nd_model **model) {
    return guarded([&] {
        require_given(model, "model");
        *model = nullptr;
        require_given(data, "data");
        *model = new nd_model(data, size, threads);
    });
}

nd_status nd_model_open(const char *path, int32_t threads, nd_model **model) {
    return guarded([&] {
        require_given(model, "model");
        *model = nullptr;
        require_given(path, "path");
        const std::vector<char> data = read_file(path);
        *model = new nd_model(data.data(), data.size(), threads);
    });
}

const char *nd_model_says(const nd_model *model, const char *key) {
    if (!model || !key) return nullptr;
    for (const auto &entry : model->said) // no look-up by std::string, which could throw
        if (entry.first == key) return entry.second.c_str();
    return nullptr;
}

void nd_model_close(nd_model *model) { delete model; }

nd_status nd_ct_open(const nd_volume *volume, nd_ct **ct) {
    return guarded([&] {
        require_given(ct, "ct");
        *ct = nullptr;
        require_given(volume, "volume");
        *ct = new nd_ct(*volume);
    });
}

void nd_ct_close(nd_ct *ct) { delete ct; }

nd_status nd_predict(const nd_model *model, const nd_ct *ct, const double position_mm[3], nd_diagnosis *diagnosis) {
    return guarded([&] {
        require_given(model, "model");
        require_given(ct, "ct");
        require_given(position_mm, "position_mm");
        require_given(diagnosis, "diagnosis");
        *diagnosis = nd_diagnosis{};
        model->predict(*ct, {position_mm[0], position_mm[1], position_mm[2]}, *diagnosis);
    });
}

const char *nd_error_code(void) { return last_code; }
const char *nd_error_message(void) { return last_message; }

const char *nd_warning_text(uint32_t bit) {
    switch (bit) {
    case ND_WARN_THICK_SLICES: return "the slices are more than 3 mm apart; the method was made for at most 3 mm";
    case ND_WARN_TURNED: return "the scan is turned against the patient's axes by more than 5 degrees; maps follow the scan";
    case ND_WARN_CUBE_OUTSIDE: return "more than a tenth of the cube round the position lies outside the CT: the network saw air there";
    case ND_WARN_NO_NODULE: return "what lies at the position looks like lung without a nodule: 99 % of nodules have a higher presence";
    case ND_WARN_NOTHING_SEGMENTED: return "no nodule was segmented at the position: volume and diameter are 0";
    case ND_WARN_OFF_CENTRE: return "the nearest segmented nodule begins more than 5 mm from the position: it may be another structure";
    case ND_WARN_TOUCHES_EDGE: return "the segmented nodule reaches the edge of the 32 mm cube: volume and diameter are lower bounds";
    default: return "";
    }
}
