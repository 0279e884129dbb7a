"""Which problems exist? One row for each diagnostic code, in ranges by stage.

01xx spec text and model · 02xx network and trace · 03xx partition · 04xx local problems and capture ·
05xx plan · 06xx data and run · 07xx command line
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """Title in a few words, and the default help line: one thing to try."""

    title: str
    help: str


CODES: dict[str, Code] = {
    # 01xx: spec text and model
    "0100": Code("unreadable spec", "check the path, and that the file is UTF-8 text"),
    "0101": Code("YAML syntax", "check indentation, brackets and quotes at that place"),
    "0102": Code("given twice", "keep one of them"),
    "0103": Code("too deep or too large", "write it with less nesting, fewer aliases or a smaller `repeat`"),
    "0104": Code("term syntax", "a term is `name` or `name(value, key=value)`; put other text in quotes"),
    "0105": Code("undefined environment variable", "set the variable, or write the path itself"),
    "0106": Code("cannot extend", "`extends` takes the path of a spec, relative to the file that names it"),
    "0107": Code(
        "override", "write `--set section.key=value`; `learn[0].optimizer.lr=0.1` reaches into terms"
    ),
    "0108": Code("DSL syntax", "compare the line with the DSL's section in docs/language.md"),
    "0110": Code("unknown key", "remove the key, or correct its name"),
    "0111": Code("not in this version", "remove it; this version of lpc does not support it yet"),
    "0112": Code("missing key", "add the key"),
    "0113": Code("wrong type", "write a value of the expected type"),
    "0114": Code("value out of range", "change the value"),
    "0120": Code("unknown name", "use a name that the language has"),
    "0121": Code("unknown argument", "remove the argument, or correct its name"),
    "0122": Code("missing argument", "add the argument"),
    "0123": Code("wrong argument", "write a value of the expected type"),
    "0124": Code("too many arguments", "remove the surplus"),
    "0130": Code("one network", "give exactly one of `layers`, `module` and `zoo`"),
    "0131": Code("selector in two blocks", "leave it in one block"),
    "0132": Code("matches no block", 'use a block\'s name, or a pattern such as `"*"`'),
    "0133": Code("no optimizer", "add `optimizer: sgd(lr=0.1)` to a `learn` entry that matches the block"),
    "0134": Code("no loss", "add `loss: cross_entropy` at the top level"),
    "0135": Code(
        "no learning signal",
        "add `head: linear, loss: cross_entropy` to the block's `learn` entry, or link it by `gradient`",
    ),
    "0136": Code("head without loss", "add a `loss` for the head, or remove the head"),
    "0137": Code("link of unknown blocks", 'write links as `"a->b"` with block names, or `"*"`'),
    "0138": Code("not a fraction", "write a share between 0 and 1, a split's name or a path"),
    "0139": Code("length of the run", "give one of `epochs`, `steps` and `phases`"),
    "0140": Code("layer", "see the layers of the language"),
    "0141": Code("no inputs", "add `inputs: {image: [1, 28, 28]}` with the shape of one sample"),
    "0142": Code("no batch fields", "add `data`, or declare under `fields` what batches hold"),
    "0143": Code("learn entry", "give `blocks` for local problems or `params` for parameter rules"),
    "0144": Code("split batch", "do not split batches in `run`, or accept the loss on each part: `split=allowed`"),
    "0145": Code("readout", "name a readout that exists, and give it a name of its own"),
    "0146": Code("phase", "write a phase as `{epochs: 5, train: b1}`"),
    "0147": Code("solver without its problem", "remove the key, or link blocks by `target`"),
    "0150": Code("placement", 'give `workers`, or a rank from 0 for every block: `{b1: 0, "b2*": 1}`'),
    "0151": Code("shards", "give `replicas: 2` or more, over whose processes the parameters are sharded"),
    "0160": Code("recipe", "a recipe file has the keys `recipe`, `about`, `parameters` and `template`"),
    # 02xx: network and trace
    "0200": Code("layer does not fit", "change the layer, or what comes before it"),
    "0201": Code("layer name", "choose another name: a plain word that is used once in its list"),
    "0202": Code("unknown layer", "`from` takes names of inputs and of layers that come before"),
    "0203": Code("network input", "give each input the shape of one sample: `inputs: {image: [1, 28, 28]}`"),
    "0204": Code("network class", "write `module: \"package:Name\"` with a class of an installed package"),
    "0205": Code("not a network", "name a class that derives from torch.nn.Module"),
    "0206": Code("network argument", "see the arguments that the network takes"),
    "0207": Code("weights", "use `random`, a safetensors file with the network's own names, or `hf:NAME`"),
    "0208": Code(
        "init law", "patterns match parameter names such as `fc1.weight`; kaiming and xavier need matrices"
    ),
    "0209": Code("cannot be traced", "change that line, or put it into a submodule of its own"),
    "0210": Code(
        "network fails on its inputs", "compare the shapes and dtypes of `inputs` with what the network takes"
    ),
    "0211": Code("fixed length", "let sizes follow the input, as in `x.view(x.shape[0], -1)`"),
    "0212": Code("custom backward would be lost", "call the custom function inside a submodule of its own"),
    "0213": Code("network output", "set `network.output` to a key, attribute or index of what the network returns"),
    "0214": Code("hidden randomness", "draw random numbers with torch, from the shape of an input"),
    "0216": Code("missing package", "install the package"),
    "0217": Code("adapter target", "name linear or convolution layers by their module paths, or by globs over them"),
    # 03xx: partition
    "0301": Code(
        "selector without a match",
        "use a module path that `lpc inspect` lists, or a pattern such as `blocks.*`",
    ),
    "0302": Code("node in two blocks", "leave it to one of the two blocks"),
    "0303": Code("parameters in no block", "add their module to the selectors of a block"),
    "0304": Code("cyclic blocks", "move the nodes between the two edges into one block"),
    "0305": Code(
        "parameter shared by blocks", "set `shared: owner` or `shared: sum`, or put both uses in one block"
    ),
    "0306": Code("too few cut points", "ask for fewer blocks, or name the blocks yourself"),
    "0307": Code(
        "choice of blocks",
        'write `per_layer`, `each("blocks.*")`, `balanced(count=4)` or `{name: selectors}`',
    ),
    "0308": Code("network without layers", "name the blocks yourself, or use `balanced(count)`"),
    "0309": Code("link of no boundary", 'write links as `"a->b"` with two blocks that meet, or `"*"`'),
    # 04xx: local problems and capture
    "0401": Code(
        "a block without a feature", "Let the block contain a layer that computes floating-point numbers."
    ),
    "0402": Code("unknown target field", "Name a batch field as `target=`, or declare it under `fields:`."),
    "0403": Code(
        "no target field", "Write `target=FIELD` in the loss, or declare the field under `fields:`."
    ),
    "0404": Code(
        "a head that does not fit", "Choose another head, or `linear(pool=mean)` for maps and tokens."
    ),
    "0405": Code("no optimizer", "Add an entry to `learn` with `optimizer: adam(lr=1e-3)` for this block."),
    "0406": Code("no loss on the output", "Add a top-level `loss: cross_entropy`."),
    "0407": Code(
        "a block that cannot learn", "Give it a `loss` in `learn`, or make the boundary after it `gradient`."
    ),
    "0408": Code("a block that no loss reaches", "Give it a local loss, or link it to a block that has one."),
    "0409": Code("a layer named as a field", "Rename the layer."),
    "0410": Code(
        "unsupported random operator",
        "Draw with dropout, bernoulli, rand or randn, with constant probabilities.",
    ),
    "0411": Code(
        "no device for the target", "Use `target: auto` or `portable`, or build on a machine with the device."
    ),
    "0412": Code(
        "a step that cannot be captured",
        "Let sizes follow the tensors that are computed with, in a custom backward as well, or report the model.",
    ),
    "0413": Code("a gradient through a stop", "report it with the spec: the compiler must not build such a plan"),
    "0414": Code(
        "`only=furthest` without a chain", 'Write `links: gradient(reach=n, only=furthest)` for a chain of blocks.'
    ),
    "0415": Code(
        "a correction that would not be one",
        "Remove `correct`, or give it what it needs: a loss on the output, means over the batch, whole batches.",
    ),
    "0416": Code("a loss that does not fit", "Choose a loss for this target, or a head that predicts its shape."),
    "0417": Code("a head that serves no loss", "Remove it, or write `head=` in the loss that should read it."),
    "0418": Code("a readout that does not fit", "Let it read blocks that exist, with a loss on class scores."),
    "0420": Code("an impossible estimator", "Let blocks joined by gradient links estimate alike, or stop there."),
    "0421": Code("no forward derivative", "Put the operator into a block of its own with `estimator: backprop`."),
    "0422": Code("units that do not fit", "Write `units: {patches: auto, groups: n}` in `decompose`, for this shape."),
    "0423": Code(
        "an auxiliary variable that cannot be",
        "Let every boundary around it be `variable`, `gradient` or `stop`, solved alike.",
    ),
    "0430": Code("trained parameters", "patterns match names such as `fc1.weight`; something must stay trainable"),
    "0431": Code("a loss that trains nothing", "Remove it, or train a parameter of the block."),
    "0432": Code("a phase that cannot train", "Let its `train` name what learns, and all that it learns through."),
    "0433": Code("inner steps that do not fit", "Take one step on each batch, or remove what speaks of one step."),
    "0434": Code("a target that does not fit", "Link a block with one last layer by `target`, with a loss of targets."),
    "0435": Code("no matching loss", "Write `loss: squared`, or name a transfer: `matching(transfer=relu)`."),
    "0436": Code("a solver that does not fit", "Use `solver: gradient`, or give the solver what it needs."),
    "0437": Code("no Kronecker factors", "Use another optimizer there, or take one plain step on a batch."),
    "0438": Code(
        "a network that cannot be split",
        "Let it be a chain of linear layers with relu or leaky_relu between, and its loss hinge or mse.",
    ),
    "0439": Code(
        "parameters beside what is judged",
        "Give their layers a block with a loss of its own, or link the blocks by `gradient`.",
    ),
    # 05xx: plan
    "0501": Code("plan not found", "build it with `lpc build SPEC -o NAME.plan`, or correct the path"),
    "0502": Code("plan from a newer version", "upgrade lpc, or build the plan again with this version"),
    "0503": Code("malformed plan data", "build the plan again; plan files are not meant to be edited"),
    "0504": Code("plan file missing", "copy the whole plan, or build it again"),
    "0505": Code("plan file damaged", "copy the plan again, or build it again"),
    "0506": Code("unsafe file name in a plan", "do not use this plan; get it from a source you trust"),
    "0507": Code("not a plain file", "replace the link or device by the file itself"),
    "0508": Code("plan file too large", "do not use this plan; build it again from its spec"),
    "0509": Code("unreadable archive", "copy the archive again, or unpack it and load the folder"),
    "0510": Code("plan cannot be written", "choose another path, or free space and permissions there"),
    "0511": Code("path holds something else", "choose a new or an empty folder, such as NAME.plan"),
    "0512": Code("manifest contradicts the plan", "build the plan again"),
    "0520": Code("plan text not understood", "compare the line with a printed plan: `lpc inspect --plan`"),
    "0521": Code("nested too deeply", "use fewer braces inside each other"),
    "0530": Code("operator not allowed", "use operators of lpc/specs/tables/operators.json only"),
    "0531": Code("operator argument not allowed", "compare the arguments with the operator's schema"),
    "0532": Code(
        "undefined value in a kernel", "build the plan again; a kernel refers to earlier nodes only"
    ),
    "0533": Code("value defined twice in a kernel", "build the plan again; a kernel's names are unique"),
    "0534": Code("result that no node computes", "build the plan again"),
    "0540": Code("value used before it is defined", "move the instruction that defines it up"),
    "0541": Code("value used after it was freed", "move the `free` down"),
    "0542": Code("value freed twice", "remove one `free`"),
    "0543": Code("value never freed", "add a `free` in the section or body that defines it"),
    "0544": Code("value defined twice", "free it first, or give the second value another name"),
    "0545": Code("unknown kernel", "name a kernel of the plan"),
    "0546": Code("wrong number of values", "compare the instruction with the kernel's signature"),
    "0547": Code("value of the wrong role", "pass a value of the role that is asked for"),
    "0548": Code("value of the wrong type", "compare dtype and shape on both sides"),
    "0549": Code("unknown random site", "name a site of the program's noise table"),
    "0550": Code("update without an optimizer", "give the block an optimizer, or drop the update"),
    "0551": Code("gradients do not belong to the block", "update the block whose parameters these are"),
    "0552": Code("parameters read after their update", "move the update after the last call that reads them"),
    "0553": Code(
        "gradient crosses a boundary that stops it", "make the link `gradient`, or drop the cotangent"
    ),
    "0554": Code("unknown metric", "name a metric of the program"),
    "0555": Code("unknown batch field", "name a field of the program"),
    "0556": Code("unknown state", "name a parameter or buffer of the program's state"),
    "0557": Code("repeats expand too far", "lower the counts of the nested repeats"),
    "0558": Code("weights do not match the state", "build the plan again"),
    "0559": Code("kernels of two targets disagree", "build the plan again for all targets at once"),
    "0560": Code("correction that does not exist", "give the block a correction, or drop the instruction"),
    "0561": Code("a phase changes what it does not train", "build the plan again"),
    "0562": Code("memory cannot be predicted", "give every length, such as `--length T=128`; build an old plan again"),
    "0563": Code("unknown variable or law", "name a variable or a law of the program"),
    "0564": Code("a variable that is not solved here", "step it in a `relax` of its own, along its own slopes"),
    "0565": Code("shards that are not those of a parameter", "derive the ranks' plans again"),
    "0570": Code("a plan says other than its spec", "build the plan again"),
    "0571": Code("a value changes before it is read", "build the plan again"),
    "0572": Code("certificate not intact", "verify the plan again: `lpc verify PLAN --certificate FILE`"),
    "0573": Code("certificate of something else", "verify the plan again: `lpc verify PLAN --certificate FILE`"),
    "0580": Code("blocks cannot be placed so", "ask for fewer workers, or place blocks that share tensors together"),
    "0581": Code("something cannot be divided among ranks", "place its blocks on one rank, or leave out what needs it"),
    "0582": Code("a send without its receive", "give every `send` one `receive`, in the same order on each edge"),
    "0583": Code("ranks wait for each other", "move a `send` before the `receive` that waits for what follows from it"),
    "0584": Code("steps cannot overlap", "write `staleness: 0`, or place what the link joins on one rank"),
    "0585": Code("a block that cannot be sharded", "name the other blocks in `shard`"),
    # 06xx: data and run
    "0600": Code("unknown data source", "name a source, for example `digits` or `mnist`"),
    "0601": Code("data source without a root", "set `data.root`, for example `--set data.root=PATH`"),
    "0602": Code("data not found", "check `data.root` and its environment variable"),
    "0603": Code("damaged data file", "fetch the file again and compare its size with the original"),
    "0604": Code("numbers of samples differ", "take all files from one version of the data set"),
    "0605": Code("field not in the data", "map it to a column: `data: {columns: {FIELD: COLUMN}}`"),
    "0606": Code("data of another shape", "change the network's input shape, or add a transform"),
    "0607": Code("data of another dtype", "change the field's dtype in the spec"),
    "0608": Code("text where numbers are needed", "store classes as whole numbers from 0"),
    "0609": Code("library for this data source is missing", "install it: pip install 'lpc[data]'"),
    "0610": Code("hub data set out of reach", "check the name, or load it once while online"),
    "0611": Code("pickled objects in an array", "save it as numbers: array.astype('float32')"),
    "0612": Code("no samples", "check the files of this split, or choose another fraction"),
    "0613": Code("no such split", "name a split of the source, a file, a folder or a fraction"),
    "0614": Code("fraction out of range", "use numbers between 0 and 1 that leave samples to train on"),
    "0615": Code("unknown transform or misfit arguments", "use for example `normalize(0.5, 0.25)`"),
    "0616": Code("transform does not fit the data", "remove the transform, or move it in the list"),
    "0617": Code("unusable image", "replace this image, or convert all images to one size and mode"),
    "0618": Code("lists of different lengths", "pad the lists to one length"),
    "0641": Code("kernel argument not understood", "build the plan again with this version of lpc"),
    "0642": Code(
        "operator missing in this torch", "install the version of torch that the plan was built with"
    ),
    "0643": Code("malformed kernel", "build the plan again; plan files are not meant to be edited"),
    "0644": Code(
        "malformed axis length", "build the plan again; lengths are whole-number expressions such as `B*4`"
    ),
    "0645": Code("unknown law of noise", "build the plan again with this version of lpc"),
    "0646": Code("noise does not fit", "pass {site: tensor} with a site of the plan and its full shape"),
    "0647": Code("tensor of another shape", "load tensors of the same network and heads"),
    "0648": Code("unknown tensor name", "correct the name, or pass strict=False to leave it out"),
    "0649": Code("missing tensor", "add it, or pass strict=False to keep the present value"),
    "0650": Code("unknown schedule", "use constant, linear, cosine, step or exponential"),
    "0651": Code("length of the run unknown", "give `run.epochs` and data, or `run.steps` and `unit: step`"),
    "0652": Code("unknown optimizer", "use a class of torch.optim in lower case, or `module(\"package:Class\")`"),
    "0653": Code(
        "optimizer cannot step a plan", "choose an optimizer that needs gradients only, such as adam"
    ),
    "0654": Code("wrong optimizer options", "compare the options with torch.optim's documentation"),
    "0655": Code("optimizer of a buffer", "build the plan again; only parameters are optimized"),
    "0656": Code("missing batch field", "pass a mapping with every field that the plan loads"),
    "0657": Code(
        "batch field of another type",
        "convert the field, for example with `.to(torch.float32)` or `.reshape(...)`",
    ),
    "0658": Code(
        "wrong number of batches", "pass one batch for each accumulated part, or one that divides equally"
    ),
    "0659": Code("factors without an inverse", "raise `damping` of the optimizer, or lower its `lr`"),
    "0660": Code(
        "more places than are remembered", "give the largest batch first, or take `state=reset` for the variables"
    ),
    "0662": Code(
        "a kernel failed", "check the batch's values (class indices, for example) and the free memory"
    ),
    "0663": Code("no such device", "use `auto`, `cpu` or, where there is one, `cuda`"),
    "0664": Code("no kernels for this device", "build the plan with `--set run.target=portable`"),
    "0665": Code("no such split", "add `data.test` or `data.validation`, or pass batches"),
    "0666": Code("no data", "add a `data` section, or pass `data=` or batches"),
    "0667": Code("too little data", "use a smaller batch, or accumulate fewer"),
    "0668": Code("not a period", "write `every(epoch)`, `every(100)` or `none`"),
    "0669": Code("TensorBoard is missing", "install it: pip install 'lpc[track]'"),
    "0670": Code("unreadable checkpoint", "name the folder of a run, or start without resuming"),
    "0671": Code("checkpoint of another plan", "resume with the plan that wrote it, or start a new folder"),
    "0672": Code("early stopping cannot work", "name a metric of the plan and give `data.validation`"),
    "0673": Code("a part of the samples", "write a `batch` that holds all samples to train on"),
    "0674": Code("no order to replay", "name the `order.jsonl` of a run with `staleness` that has ended"),
    "0675": Code("the order of another plan", "replay it with the plan that was run: `run.plan` in its folder"),
    "0676": Code("another outcome", "replay with the torch, and on the kind of processor, that the run had"),
    "0680": Code("a rank without the others", "run it with `lpc run PLAN --workers N`, or under torchrun"),
    "0681": Code("a silent rank", "look at that rank's log; where it is only slow, raise `--patience`"),
    "0682": Code("a rank is gone", "look at that rank's log; `--resume` continues from the last checkpoint"),
    "0683": Code("ranks are out of step", "give all ranks the same plan, batches and calls"),
    "0684": Code("workers cannot be started so", "compare with `lpc run --help`"),
    # 07xx: command line
    "0701": Code("file not accessible", "correct the path, or the permissions and free space there"),
    "0702": Code("file already there", "choose another name, or add `--force` to replace it"),
    "0703": Code("a built plan is fixed", "give the spec to `lpc run`, or build the plan again with `--set`"),
    "0704": Code("unknown kernel or block", "`lpc inspect PLAN` lists the blocks, with `--plan` the kernels"),
    "0705": Code("command line not understood", "see `lpc --help`"),
    "0706": Code("no such code", "the codes are listed in docs/errors.md"),
    "0707": Code("library for editors is missing", "install it: pip install 'lpc[lsp]'"),
    "0708": Code("not written as code", "run it with `lpc run`, or leave that out of the spec"),
    "0709": Code("no costs of this plan", "measure them again: `lpc calibrate PLAN --output FILE`"),
}
