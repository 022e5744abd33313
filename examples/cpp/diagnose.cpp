// nodule-diag-cpp FUSED.onnx CT.mhd --xyz X Y Z [--xyz X Y Z ...]: diagnoses nodules, and prints one JSON document.
//
// The CT is a MetaImage: a short text of its geometry (.mhd) beside its raw voxels. ITK, 3D Slicer and write_mhd.py write it.
// Exit codes are those of nodule-diag: 0 done, 2 usage, 3 the CT or a position was refused, 4 the model, 5 the runtime, 1 else.
#include "nodule_diag.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <map>
#include <set>
#include <sstream>
#include <vector>

namespace {

using nodule_diag::Error;
using Milliseconds = std::chrono::duration<double, std::milli>;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return Milliseconds(Clock::now() - begin).count(); }

template <class Number> std::vector<Number> numbers(const std::string &text, size_t count, const std::string &what) {
    std::istringstream words(text);
    words.imbue(std::locale::classic());
    std::vector<Number> found;
    for (Number value; words >> value;) found.push_back(value);
    if (found.size() != count || !words.eof()) throw Error(ND_CT, "ct-damaged", what + " is not " + std::to_string(count) + " numbers: " + text);
    return found;
}

// A CT in memory.
struct Scan {
    nd_volume volume{};
    std::vector<char> voxels;
};

Scan read_mhd(const std::filesystem::path &path) {
    std::ifstream header(path);
    if (!header) throw Error(ND_CT, "ct-missing", "the CT " + path.string() + " cannot be read");
    // MetaIO has several names for one field.
    const std::map<std::string, std::string> synonyms = {{"Position", "Offset"}, {"Origin", "Offset"}, {"Rotation", "TransformMatrix"},
                                                         {"Orientation", "TransformMatrix"}, {"ElementSize", "ElementSpacing"},
                                                         {"ElementByteOrderMSB", "BinaryDataByteOrderMSB"}};
    const std::map<std::string, std::string> wanted = {
        {"NDims", "3"}, {"CompressedData", "False"}, {"BinaryDataByteOrderMSB", "False"}, {"HeaderSize", "0"}};
    const std::set<std::string> needed = {"DimSize", "ElementSpacing", "Offset", "TransformMatrix", "ElementType", "ElementDataFile"};
    std::map<std::string, std::string> said;
    for (std::string line; said.count("ElementDataFile") == 0 && std::getline(header, line);) {
        const auto equals = line.find('=');
        if (equals == std::string::npos) continue;
        const auto trimmed = [](const std::string &text) {
            const auto first = text.find_first_not_of(" \t\r"), last = text.find_last_not_of(" \t\r");
            return first == std::string::npos ? std::string() : text.substr(first, last - first + 1);
        };
        std::string key = trimmed(line.substr(0, equals));
        if (const auto synonym = synonyms.find(key); synonym != synonyms.end()) key = synonym->second;
        if (wanted.count(key) == 0 && needed.count(key) == 0) continue;
        if (!said.emplace(key, trimmed(line.substr(equals + 1))).second) throw Error(ND_CT, "ct-damaged", key + " comes twice");
    }
    for (const auto &[key, value] : wanted)
        if (said.count(key) && said[key] != value) throw Error(ND_CT, "ct-not-supported", key + " is " + said[key] + "; this program reads " + value);
    for (const auto &key : needed)
        if (said.count(key) == 0) throw Error(ND_CT, "ct-damaged", "the header lacks " + key);
    Scan scan;
    const std::string type = said["ElementType"];
    if (type != "MET_SHORT" && type != "MET_FLOAT")
        throw Error(ND_CT, "ct-not-supported", "ElementType is " + type + "; this program reads MET_SHORT and MET_FLOAT");
    scan.volume.hu_type = type == "MET_SHORT" ? ND_INT16 : ND_FLOAT32;
    const auto size = numbers<int64_t>(said["DimSize"], 3, "DimSize");
    const auto spacing = numbers<double>(said["ElementSpacing"], 3, "ElementSpacing");
    const auto offset = numbers<double>(said["Offset"], 3, "Offset");
    const auto axes = numbers<double>(said["TransformMatrix"], 9, "TransformMatrix");
    for (int i = 0; i < 3; ++i) {
        scan.volume.size[i] = size[i], scan.volume.spacing_mm[i] = spacing[i], scan.volume.origin_mm[i] = offset[i];
        for (int r = 0; r < 3; ++r) scan.volume.direction[3 * r + i] = axes[3 * i + r]; // the file has axis after axis
    }
    // What the header promises is compared with what is there before memory is asked for.
    const std::filesystem::path raw = path.parent_path() / said["ElementDataFile"];
    std::error_code failed;
    const auto there = std::filesystem::file_size(raw, failed);
    double promised = type == "MET_SHORT" ? 2 : 4;
    for (int64_t n : size) promised *= double(n);
    if (failed || promised < 1 || double(there) != promised)
        throw Error(ND_CT, "ct-truncated", raw.string() + " does not hold the voxels that the header promises");
    scan.voxels.resize(size_t(there));
    std::ifstream data(raw, std::ios::binary);
    if (!data.read(scan.voxels.data(), std::streamsize(there))) throw Error(ND_CT, "ct-unreadable", raw.string() + " cannot be read");
    scan.volume.hu = scan.voxels.data();
    return scan;
}

std::string quoted(const std::string &text) {
    std::string made = "\"";
    for (unsigned char c : text) {
        char escaped[8];
        if (c == '"' || c == '\\') made += '\\';
        if (c < 0x20) {
            std::snprintf(escaped, sizeof escaped, "\\u%04x", unsigned(c));
            made += escaped;
        } else {
            made += char(c);
        }
    }
    return made + "\"";
}

std::string number(double value, int digits = 17) {
    if (!std::isfinite(value)) return "null";
    char text[40];
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    return text;
}

template <class Values> std::string list(const Values &values, int digits = 17) {
    std::string made;
    for (auto value : values) made += (made.empty() ? "" : ", ") + number(double(value), digits);
    return "[" + made + "]";
}

std::string nodule(const nd_diagnosis &found, size_t id, bool maps) {
    std::string warnings;
    for (uint32_t bit = 1; bit; bit <<= 1)
        if (found.warnings & bit) warnings += (warnings.empty() ? "" : ", ") + quoted(nd_warning_text(bit));
    std::string made = "{\"id\": \"" + std::to_string(id) + "\", \"xyz_lps_mm\": " + list(found.position_mm) +
                       ", \"presence\": " + number(found.presence) + ", \"malignancy\": " + number(found.malignancy) +
                       ", \"logit\": " + number(found.logit) + ", \"expert_score\": " + number(found.expert_score) +
                       ", \"segmentation\": {\"volume_mm3\": " + number(found.volume_mm3) + ", \"diameter_mm\": " + number(found.diameter_mm) +
                       "}, \"faithfulness\": {\"cam_nodule\": " + number(found.cam_nodule) + ", \"cam_background\": " +
                       number(found.cam_background) + ", \"margin\": " + number(found.cam_nodule - found.cam_background) +
                       "}, \"warnings\": [" + warnings + "]";
    if (maps)
        made += ", \"maps\": {\"size\": 16, \"spacing_mm\": 2, \"order\": \"zyx\", \"axes\": " + list(found.axes) +
                ", \"segmentation\": " + list(found.segmentation, 9) + ", \"cam\": " + list(found.cam, 9) + "}";
    return made + "}";
}

struct Options {
    std::vector<std::string> files;
    std::vector<std::array<double, 3>> points;
    int threads = 0, repeat = 1;
    bool maps = false;
};

Options parsed(int count, char **words) {
    Options options;
    const auto next = [&](int &i) {
        if (++i >= count) throw Error(ND_USAGE, "usage", std::string(words[i - 1]) + " lacks a value");
        char *end = nullptr;
        const double value = std::strtod(words[i], &end);
        if (end == words[i] || *end) throw Error(ND_USAGE, "usage", std::string(words[i]) + " is no number");
        return value;
    };
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "--xyz") {
            options.points.push_back({next(i), next(i), next(i)});
        } else if (word == "--threads" || word == "--repeat") {
            const double value = next(i);
            if (value < 1 || value > 10000) throw Error(ND_USAGE, "usage", word + " is a whole number from 1");
            (word == "--threads" ? options.threads : options.repeat) = int(value);
        } else if (word == "--maps") {
            options.maps = true;
        } else if (word.rfind("--", 0) == 0) {
            throw Error(ND_USAGE, "usage", "there is no option " + word);
        } else {
            options.files.push_back(word);
        }
    }
    if (options.files.size() != 2 || options.points.empty())
        throw Error(ND_USAGE, "usage", "nodule-diag-cpp FUSED.onnx CT.mhd --xyz X Y Z [--xyz ...] [--threads N] [--maps] [--repeat N]");
    return options;
}

void run(const Options &options) {
    auto begin = Clock::now();
    const nodule_diag::Model model(options.files[0], options.threads);
    const double load_ms = since(begin);
    begin = Clock::now();
    const Scan scan = read_mhd(options.files[1]);
    const double read_ms = since(begin);
    std::vector<double> answer_ms;
    std::string nodules;
    for (int round = 0; round < options.repeat; ++round) {
        begin = Clock::now();
        const nodule_diag::CT ct(scan.volume);
        std::vector<nd_diagnosis> found;
        for (const auto &point : options.points) found.push_back(model.predict(ct, point));
        answer_ms.push_back(since(begin));
        nodules.clear();
        for (size_t i = 0; i < found.size(); ++i) nodules += (i ? ",\n  " : "\n  ") + nodule(found[i], i + 1, options.maps);
    }
    std::printf("{\"schema\": \"nodule-diag/cpp/1\",\n \"model\": {\"name\": %s, \"version\": %s, \"bundle_sha256\": %s},\n \"nodules\": [%s],\n"
                " \"timing_ms\": {\"load\": %s, \"read\": %s, \"answer\": %s}}\n",
                quoted(model.says("name")).c_str(), quoted(model.says("version")).c_str(), quoted(model.says("source_bundle_sha256")).c_str(),
                nodules.c_str(), number(load_ms, 6).c_str(), number(read_ms, 6).c_str(), list(answer_ms, 6).c_str());
}

int refused(nd_status status, const std::string &code, const std::string &message) {
    std::printf("{\"error\": {\"code\": %s, \"message\": %s}}\n", quoted(code).c_str(), quoted(message).c_str());
    return status;
}

} // namespace

int main(int count, char **words) {
    try {
        run(parsed(count, words));
        return 0;
    } catch (const Error &error) {
        return refused(error.status, error.code, error.what());
    } catch (const std::exception &error) {
        return refused(ND_UNFORESEEN, "unforeseen", error.what());
    }
}
