#include "rewrite.hpp"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/peephole.h>

#include <functional>
#include <set>

#include "guard.hpp"
#include "pack.hpp"

namespace featinv {

namespace {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;
using Object = c10::intrusive_ptr<c10::ivalue::Object>;

/* A module's value inside a graph: where it stands and what it is. */
struct Place {
    std::string path; /* "" or ending in a dot */
    Object object;
};

/* One method on its way to code. */
struct Draft {
    std::string name;
    std::shared_ptr<Graph> graph;
    std::map<std::string, std::vector<Value *>> weights; /* reads of a weight, by key */
};

void each_node(torch::jit::Block *block, const std::function<void(Node *)> &visit) {
    for (auto it = block->nodes().begin(); it != block->nodes().end();) {
        Node *node = *it++; /* visit may destroy it */
        for (torch::jit::Block *inner : node->blocks())
            each_node(inner, visit);
        visit(node);
    }
}

/* Attributes that the methods assign to stay in the module. */
std::set<std::string> assigned_names(const std::vector<Draft> &drafts) {
    std::set<std::string> names;
    for (const Draft &draft : drafts)
        each_node(draft.graph->block(), [&](Node *node) {
            if (node->kind() == c10::prim::SetAttr)
                names.insert(node->s(c10::attr::name));
        });
    return names;
}

Value *insert_tensor(Graph &graph, const at::Tensor &tensor) {
    Node *constant = graph.create(c10::prim::Constant);
    constant->t_(c10::attr::value, tensor);
    constant->output()->setType(c10::TensorType::get());
    graph.prependNode(constant);
    return constant->output();
}

/* Walks the reads of module attributes: weights are noted, everything else becomes a constant. */
class Reader {
  public:
    Reader(Draft &draft, const fi_net &net, const std::set<std::string> &weights,
           const std::set<std::string> &assigned)
        : draft_(draft), net_(net), weights_(weights), assigned_(assigned) {}

    void read(const Object &self) {
        places_[draft_.graph->inputs()[0]] = {"", self};
        walk(draft_.graph->block());
    }

  private:
    void walk(torch::jit::Block *block) {
        for (Node *node : block->nodes()) {
            if (node->kind() == c10::prim::GetAttr)
                attribute(node);
            for (torch::jit::Block *inner : node->blocks())
                walk(inner);
        }
    }

    void attribute(Node *node) {
        const auto found = places_.find(node->input());
        if (found == places_.end())
            return;
        const Place place = found->second;
        const std::string name = node->s(c10::attr::name);
        const c10::IValue value = place.object->getAttr(name);
        const std::string key = place.path + name;
        if (value.isModule()) {
            places_[node->output()] = {key + ".", value.toObject()};
        } else if (assigned_.count(name)) {
            return;
        } else if (weights_.count(key)) {
            draft_.weights[key].push_back(node->output());
        } else if (value.isTensor()) {
            node->output()->replaceAllUsesWith(
                insert_tensor(*draft_.graph, value.toTensor().to(net_.device)));
        } else {
            const torch::jit::WithInsertPoint at(node);
            if (const auto constant = torch::jit::tryInsertConstant(*draft_.graph, value))
                node->output()->replaceAllUsesWith(*constant);
        }
    }

    Draft &draft_;
    const fi_net &net_;
    const std::set<std::string> &weights_;
    const std::set<std::string> &assigned_;
    std::unordered_map<Value *, Place> places_;
};

/* A traced program names the device it was traced on. */
void move_constants(Graph &graph, const at::Device &device) {
    if (device.is_cpu())
        return;
    each_node(graph.block(), [&](Node *node) {
        if (node->kind() != c10::prim::Constant)
            return;
        const auto value = torch::jit::toIValue(node->output());
        if (value && value->isDevice()) {
            const torch::jit::WithInsertPoint at(node);
            node->output()->replaceAllUsesWith(graph.insertConstant(device));
        } else if (value && value->isTensor() && value->toTensor().defined()) {
            node->t_(c10::attr::value, value->toTensor().to(device));
        }
    });
}

/* D of `context (R,L,D)`: the inner size of the first linear layer that reads the argument. */
std::int64_t context_width(const Draft &draft, const fi_net &net) {
    const Value *argument = draft.graph->inputs().size() > 1 ? draft.graph->inputs()[1] : nullptr;
    for (const auto &[key, reads] : draft.weights)
        for (Value *read : reads)
            for (const torch::jit::Use &use : read->uses())
                if (use.user->kind() == c10::aten::linear && use.offset == 1 &&
                    use.user->input(0) == argument)
                    return net.weights.at(key).shape.at(1);
    return 0;
}

std::optional<std::vector<std::int64_t>> constant_pair(Value *value) {
    const auto constant = torch::jit::toIValue(value);
    if (!constant || !constant->isIntList())
        return std::nullopt;
    std::vector<std::int64_t> pair = constant->toIntVector();
    if (pair.size() == 1)
        pair.push_back(pair[0]);
    return pair.size() == 2 ? std::make_optional(pair) : std::nullopt;
}

bool constant_is(Value *value, const c10::IValue &wanted) {
    const auto constant = torch::jit::toIValue(value);
    return constant && *constant == wanted;
}

/* The geometry of a node that multiplies by the weight `use` as Packed can, else none. */
std::optional<Packed::Geometry> packable(const torch::jit::Use &use, std::size_t dims) {
    const Node *node = use.user;
    if (use.offset != 1)
        return std::nullopt;
    if (node->kind() == c10::aten::linear && dims == 2)
        return Packed::Geometry{};
    const bool traced = node->kind() == c10::aten::_convolution;
    if (dims != 4 || (node->kind() != c10::aten::conv2d && !traced))
        return std::nullopt;
    /* conv2d: x, w, b, stride, padding, dilation, groups;
     * _convolution: …, dilation, transposed, output_padding, groups, … */
    if (traced && !constant_is(node->input(6), false))
        return std::nullopt;
    if (!constant_is(node->input(traced ? 8 : 6), 1))
        return std::nullopt;
    const auto stride = constant_pair(node->input(3)), padding = constant_pair(node->input(4)),
               dilation = constant_pair(node->input(5));
    if (!stride || !padding || !dilation)
        return std::nullopt;
    return Packed::Geometry{*stride, *padding, *dilation};
}

void replace_packed(Graph &graph, Node *node, const c10::intrusive_ptr<Packed> &packed) {
    Node *fresh =
        graph.create(c10::Symbol::fromQualString(packed_node), {node->input(0), node->input(2)});
    fresh->ival_(c10::attr::value, c10::IValue::make_capsule(packed));
    fresh->output()->setType(c10::TensorType::get());
    fresh->insertBefore(node);
    node->output()->replaceAllUsesWith(fresh->output());
    node->destroy();
}

/* Puts one weight into the graphs that read it: packed where all uses allow it, else plain. */
void place_weight(std::vector<Draft> &drafts, const fi_net &net, const std::string &key,
                  bool may_pack) {
    const at::Tensor value = net.weights.at(key).value;
    std::vector<std::pair<Graph *, torch::jit::Use>> uses;
    for (Draft &draft : drafts)
        for (Value *read : draft.weights[key])
            for (const torch::jit::Use &use : read->uses())
                uses.emplace_back(draft.graph.get(), use);
    const std::size_t dims = static_cast<std::size_t>(value.dim());
    bool packs = may_pack && !uses.empty() && value.numel() > 0;
    for (const auto &use : uses)
        packs = packs && packable(use.second, dims);
    std::vector<c10::intrusive_ptr<Packed>> made;
    for (const auto &[graph, use] : uses) {
        if (!packs)
            break;
        const auto geometry = packable(use, dims);
        c10::intrusive_ptr<Packed> packed;
        for (const auto &other : made)
            if (other->geometry() == *geometry)
                packed = other;
        if (!packed)
            made.push_back(packed = c10::make_intrusive<Packed>(value, *geometry));
        replace_packed(*graph, use.user, packed);
    }
    for (Draft &draft : drafts) {
        Value *constant = nullptr;
        for (Value *read : draft.weights[key]) {
            if (!read->hasUses())
                continue;
            if (!constant)
                constant = insert_tensor(*draft.graph, value);
            read->replaceAllUsesWith(constant);
        }
    }
}

std::vector<Draft> draft_methods(Program &program) {
    std::vector<Draft> drafts;
    for (const torch::jit::Method &method : program.module.get_methods()) {
        Draft draft;
        draft.name = method.name();
        draft.graph = torch::jit::toGraphFunction(method.function()).graph()->copy();
        torch::jit::Inline(*draft.graph);
        drafts.push_back(std::move(draft));
    }
    return drafts;
}

void simplify(std::shared_ptr<Graph> &graph) {
    torch::jit::ConstantPropagation(graph);
    torch::jit::PeepholeOptimize(graph, /*disable_shape_peepholes=*/true);
    torch::jit::EliminateDeadCode(graph);
}

/* What could not be taken out of the module reads its attributes as before: give it real ones. */
void fill_module(Program &program, const fi_net &net) {
    for (const auto &entry : program.module.named_parameters())
        if (entry.value.is_floating_point())
            entry.value.set_data(net.weights.at(entry.name).value);
    for (const auto &entry : program.module.named_buffers())
        entry.value.set_data(entry.value.is_floating_point() ? net.weights.at(entry.name).value
                                                             : entry.value.to(net.device));
}

/* Replaces the tensor behind a dotted name. */
void set_attribute(const torch::jit::Module &module, const std::string &name,
                   const at::Tensor &value) {
    Object object = module._ivalue();
    std::size_t begin = 0;
    for (std::size_t dot; (dot = name.find('.', begin)) != std::string::npos; begin = dot + 1)
        object = object->getAttr(name.substr(begin, dot - begin)).toObject();
    object->setAttr(name.substr(begin), value);
}

} // namespace

void keep_program(fi_net &net, Program &program) {
    program.methods.clear();
    for (Draft &draft : draft_methods(program)) {
        torch::jit::EliminateDeadCode(draft.graph);
        move_constants(*draft.graph, net.device);
        Method method;
        method.takes_module = true;
        method.code = torch::jit::Code(draft.graph, draft.name);
        program.methods.emplace(draft.name, std::move(method));
    }
    for (const auto &entry : program.module.named_buffers())
        if (!entry.value.is_floating_point())
            set_attribute(program.module, entry.name, entry.value.to(net.device));
    for (const External &external : program.externals)
        set_attribute(program.module, external.key, net.weights.at(external.key).value);
}

void lower_program(fi_net &net, Program &program) {
    register_packed_node();
    program.methods.clear();
    std::set<std::string> keys;
    for (const External &external : program.externals)
        keys.insert(external.key);

    std::vector<Draft> drafts = draft_methods(program);
    const std::set<std::string> assigned = assigned_names(drafts);
    for (Draft &draft : drafts) {
        /* First the flags, so that branches on them vanish; then the reads that are left. */
        Draft flags = draft;
        Reader(flags, net, keys, assigned).read(program.module._ivalue());
        simplify(draft.graph);
        move_constants(*draft.graph, net.device);
        Reader(draft, net, keys, assigned).read(program.module._ivalue());
        if (draft.name == "context")
            program.context_width = context_width(draft, net);
    }
    const bool may_pack = packs(net, program.number);
    for (const External &external : program.externals)
        place_weight(drafts, net, external.key, may_pack);
    bool takes_module = false;
    for (Draft &draft : drafts) {
        torch::jit::EliminateDeadCode(draft.graph);
        Method method;
        method.takes_module = draft.graph->inputs()[0]->hasUses();
        takes_module = takes_module || method.takes_module;
        if (!method.takes_module)
            draft.graph->eraseInput(0);
        method.code = torch::jit::Code(draft.graph, draft.name);
        program.methods.emplace(draft.name, std::move(method));
    }
    if (takes_module)
        fill_module(program, net);
    for (const External &external : program.externals) {
        Weight &weight = net.weights.at(external.key);
        weight.wanted &= ~(1u << program.number);
        if (!weight.wanted)
            weight.value.reset();
    }
}

} // namespace featinv
