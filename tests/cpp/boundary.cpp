// The library's boundary: whatever is handed in, a status and words come out. boundary FUSED.onnx
#include "nodule_diag.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <thread>
#include <vector>

namespace {

int failures = 0;

void expect(bool holds, const char *what, int line) {
    if (holds) return;
    std::printf("line %d: %s; code '%s', message '%s'\n", line, what, nd_error_code(), nd_error_message());
    ++failures;
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

void refused(nd_status found, nd_status wanted, const char *code, int line) {
    expect(found == wanted && !std::strcmp(nd_error_code(), code) && std::strlen(nd_error_message()) > 5, code, line);
}
#define REFUSED(call, status, code) refused(call, status, code, __LINE__)

constexpr int SIZE = 48;

// A ball of tissue in lung, in a shell of tissue.
struct Scan {
    std::vector<float> hu = std::vector<float>(size_t(SIZE) * SIZE * SIZE);
    std::vector<int16_t> whole = std::vector<int16_t>(hu.size());
    nd_volume volume{};

    Scan() {
        for (int z = 0, i = 0; z < SIZE; ++z)
            for (int y = 0; y < SIZE; ++y)
                for (int x = 0; x < SIZE; ++x, ++i) {
                    const double r = std::hypot(x - 24, y - 22, z - 20);
                    hu[size_t(i)] = r < 6 || r > 30 ? 40.0F : -860.0F;
                    whole[size_t(i)] = int16_t(hu[size_t(i)]);
                }
        volume.hu = hu.data();
        volume.hu_type = ND_FLOAT32;
        for (int i = 0; i < 3; ++i) volume.size[i] = SIZE, volume.spacing_mm[i] = 1.0, volume.direction[4 * i] = 1.0;
    }
};

void open_and_close(const nd_volume &volume, nd_status status, const char *code, int line) {
    nd_ct *ct = reinterpret_cast<nd_ct *>(8); // must not be left as it was
    refused(nd_ct_open(&volume, &ct), status, code, line);
    expect(ct == nullptr, "a refused CT has no handle", line);
    nd_ct_close(ct);
}
#define BAD_CT(volume, code) open_and_close(volume, ND_CT, code, __LINE__)

void bad_volumes() {
    const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
    {
        Scan scan;
        scan.hu[size_t(5 * SIZE * SIZE + 3 * SIZE + 1)] = std::nanf("");
        BAD_CT(scan.volume, "ct-not-finite");
        EXPECT(std::strstr(nd_error_message(), "(1, 3, 5)"));
        scan.hu[size_t(5 * SIZE * SIZE + 3 * SIZE + 1)] = -std::numeric_limits<float>::infinity();
        BAD_CT(scan.volume, "ct-not-finite");
    }
    for (float value : {0.0F, -1000.0F, 1e6F, 5000.0F}) {
        Scan scan;
        for (float &hu : scan.hu) hu = value;
        BAD_CT(scan.volume, "ct-not-hu");
    }
    for (int64_t n : {int64_t(0), int64_t(1), int64_t(-4), std::numeric_limits<int64_t>::min()}) {
        Scan scan;
        scan.volume.size[1] = n;
        BAD_CT(scan.volume, "ct-not-3d");
    }
    for (int64_t n : {int64_t(1) << 31, std::numeric_limits<int64_t>::max()}) {
        Scan scan;
        scan.volume.size[0] = scan.volume.size[1] = scan.volume.size[2] = n;
        BAD_CT(scan.volume, "ct-too-large");
    }
    for (double mm : {0.0, -1.0, 0.01, nan, infinity}) {
        Scan scan;
        scan.volume.spacing_mm[2] = mm;
        BAD_CT(scan.volume, "ct-bad-spacing");
    }
    {
        Scan scan;
        scan.volume.spacing_mm[2] = 7.5;
        BAD_CT(scan.volume, "ct-slice-spacing");
    }
    for (double mm : {nan, infinity}) {
        Scan scan;
        scan.volume.origin_mm[0] = mm;
        BAD_CT(scan.volume, "ct-damaged");
        scan.volume.origin_mm[0] = 0;
        scan.volume.direction[5] = mm;
        BAD_CT(scan.volume, "ct-damaged");
    }
    {
        Scan scan;
        scan.volume.direction[0] = 0;
        BAD_CT(scan.volume, "ct-damaged");
        scan.volume.direction[0] = 1, scan.volume.direction[1] = 0.1;
        BAD_CT(scan.volume, "ct-sheared");
    }
    {
        Scan scan;
        scan.volume.hu_type = 7;
        open_and_close(scan.volume, ND_USAGE, "usage", __LINE__);
        scan.volume.hu_type = ND_FLOAT32, scan.volume.hu = nullptr;
        open_and_close(scan.volume, ND_USAGE, "usage", __LINE__);
    }
}

void bad_models(const char *path) {
    nd_model *model = nullptr;
    REFUSED(nd_model_open("/nowhere/fused.onnx", 1, &model), ND_MODEL, "bundle-missing");
    REFUSED(nd_model_open("/", 1, &model), ND_MODEL, "bundle-missing");
    REFUSED(nd_model_open(path, -1, &model), ND_USAGE, "usage");
    REFUSED(nd_model_open(nullptr, 1, &model), ND_USAGE, "usage");
    REFUSED(nd_model_open(path, 1, nullptr), ND_USAGE, "usage");
    REFUSED(nd_model_from_bytes("no model", 8, 1, &model), ND_MODEL, "bundle-model-unreadable");
    REFUSED(nd_model_from_bytes("", 0, 1, &model), ND_MODEL, "bundle-model-unreadable");
    std::ifstream file(path, std::ios::binary);
    std::vector<char> data{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    REFUSED(nd_model_from_bytes(data.data(), data.size() / 2, 1, &model), ND_MODEL, "bundle-model-unreadable");
    EXPECT(model == nullptr);
    EXPECT(nd_model_from_bytes(data.data(), data.size(), 1, &model) == ND_OK);
    EXPECT(!std::strcmp(nd_error_code(), "") && !std::strcmp(nd_error_message(), ""));
    EXPECT(nd_model_says(model, "contract") && !nd_model_says(model, "nothing") && !nd_model_says(model, nullptr));
    EXPECT(!nd_model_says(nullptr, "name"));
    nd_model_close(model);
}

void bad_positions(const nd_model *model) {
    Scan scan;
    nd_ct *ct = nullptr;
    EXPECT(nd_ct_open(&scan.volume, &ct) == ND_OK);
    nd_diagnosis found;
    const double nan = std::nan(""), inside[3] = {24, 22, 20};
    const double outside[][3] = {{-0.6, 1, 1}, {1, 47.6, 1}, {1, 1, 1e9}, {1, -1e300, 1}};
    for (const auto &position : outside) REFUSED(nd_predict(model, ct, position, &found), ND_CT, "coordinate-outside");
    for (int i = 0; i < 3; ++i) {
        double position[3] = {24, 22, 20};
        position[i] = i == 1 ? std::numeric_limits<double>::infinity() : nan;
        REFUSED(nd_predict(model, ct, position, &found), ND_CT, "coordinate-not-finite");
    }
    REFUSED(nd_predict(nullptr, ct, inside, &found), ND_USAGE, "usage");
    REFUSED(nd_predict(model, nullptr, inside, &found), ND_USAGE, "usage");
    REFUSED(nd_predict(model, ct, nullptr, &found), ND_USAGE, "usage");
    REFUSED(nd_predict(model, ct, inside, nullptr), ND_USAGE, "usage");
    for (double border : {-0.5, 47.5}) { // the outer faces belong to the CT
        const double position[3] = {border, border, border};
        EXPECT(nd_predict(model, ct, position, &found) == ND_OK);
        EXPECT(found.warnings & ND_WARN_CUBE_OUTSIDE);
    }
    nd_ct_close(ct);
}

// Integers and floats of the same values, and every one of many threads, give the same answer.
void same_answers(const nd_model *model) {
    Scan scan;
    nd_volume whole = scan.volume;
    whole.hu = scan.whole.data(), whole.hu_type = ND_INT16;
    nd_ct *floats = nullptr, *integers = nullptr;
    EXPECT(nd_ct_open(&scan.volume, &floats) == ND_OK && nd_ct_open(&whole, &integers) == ND_OK);
    const double position[3] = {24, 22, 20};
    nd_diagnosis first;
    EXPECT(nd_predict(model, floats, position, &first) == ND_OK);
    EXPECT(first.malignancy >= 0 && first.malignancy <= 1 && first.diameter_mm > 0);
    std::vector<std::thread> threads;
    std::vector<int> wrong(8, 0);
    for (size_t t = 0; t < wrong.size(); ++t)
        threads.emplace_back([&, t] {
            nd_diagnosis found;
            const double outside[3] = {-100.0 - double(t), 0, 0};
            char said[64];
            std::snprintf(said, sizeof said, "(%.2f,", outside[0]);
            for (int round = 0; round < 5; ++round) {
                wrong[t] += nd_predict(model, t % 2 ? floats : integers, position, &found) != ND_OK;
                wrong[t] += std::memcmp(&found.cam, &first.cam, sizeof found.cam) != 0 || found.logit != first.logit;
                wrong[t] += nd_predict(model, floats, outside, &found) != ND_CT;
                wrong[t] += !std::strstr(nd_error_message(), said); // this thread's own words
            }
        });
    for (auto &thread : threads) thread.join();
    for (int count : wrong) EXPECT(count == 0);
    nd_ct_close(floats);
    nd_ct_close(integers);
}

// The cover in C++ throws what the boundary says, and closes what it opened.
void cover(const char *path) {
    const nodule_diag::Model model(path, 1);
    const Scan scan;
    const nodule_diag::CT ct(scan.volume);
    EXPECT(std::isfinite(model.predict(ct, {24, 22, 20}).logit));
    EXPECT(model.says("contract") == "nodule-diag/fused/1" && model.says("nothing").empty());
    try {
        model.predict(ct, {1e6, 0, 0});
        EXPECT(!"it was refused");
    } catch (const nodule_diag::Error &error) {
        EXPECT(error.status == ND_CT && error.code == "coordinate-outside");
    }
}

} // namespace

int main(int count, char **words) {
    if (count != 2) return 2;
    bad_volumes();
    bad_models(words[1]);
    nd_model *model = nullptr;
    EXPECT(nd_model_open(words[1], 1, &model) == ND_OK);
    if (model) bad_positions(model), same_answers(model);
    nd_model_close(model);
    nd_model_close(nullptr);
    nd_ct_close(nullptr);
    REFUSED(nd_ct_open(nullptr, nullptr), ND_USAGE, "usage");
    cover(words[1]);
    EXPECT(*nd_warning_text(ND_WARN_NO_NODULE) && !*nd_warning_text(3));
    std::printf("%d failures\n", failures);
    return failures != 0;
}
