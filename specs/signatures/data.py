"""Which terms name data and what is measured on it? Sources, transforms, networks, init laws, metrics."""

from __future__ import annotations

from lpc.specs.signatures.signature import Parameter, Signature, vocabulary

_PATH = Parameter("path", "none | str", None, "file or folder, inside `data.root` where that is given")
_SIZE = Parameter("size", "none | size", None, "common side of the images: scaled, then cut around the centre")

SOURCES = vocabulary(
    (
        Signature("digits", (), "scikit-learn's 8x8 digits, part of the installation"),
        Signature(
            "curves",
            (
                Parameter("seed", "natural", 0, "of the random points"),
                Parameter("train", "size", 20_000, "images to train on"),
                Parameter("test", "size", 10_000, "images held out"),
            ),
            "28x28 images of smooth curves through three random points, drawn when they are read; no labels",
        ),
        Signature("mnist", (_PATH,), "the four IDX files of MNIST"),
        Signature("idx", (_PATH,), "image and label files in IDX format"),
        Signature("npz", (_PATH,), "NumPy archive with one array per field"),
        Signature(
            "csv",
            (
                _PATH,
                Parameter("label", "none | natural | str", None, "column of the labels, by number from 0 or by name"),
                Parameter("header", "bool", True, "whether the first line has the columns' names"),
                Parameter("delimiter", "str", ",", "between columns"),
                Parameter("kind", "'class' | 'number'", "class", "of labels: class numbers, or any numbers"),
                Parameter("test", "natural", 0, "last rows, which are the test split"),
            ),
            "CSV files of numbers, raw or gzipped; the columns beside the label are the field `x`",
        ),
        Signature("parquet", (_PATH, _SIZE), "Parquet files"),
        Signature("imagefolder", (_PATH, _SIZE), "a folder of images per class"),
        Signature(
            "huggingface",
            (
                Parameter("name", "str", doc="data set name"),
                Parameter("config", "none | str", None, "configuration of the data set"),
                _SIZE,
            ),
            "a data set of the Hugging Face hub or its cache",
        ),
    )
)

_CHANNELS = "float | [float]"

TRANSFORMS = vocabulary(
    (
        Signature(
            "normalize",
            (
                Parameter("mean", _CHANNELS, doc="subtracted, per channel or for all"),
                Parameter("std", _CHANNELS, doc="divisor, per channel or for all"),
            ),
            "(x - mean) / std",
        ),
        Signature("scale", (Parameter("factor", "float", doc="the factor"),), "x * factor"),
        Signature("flatten", (), "one axis per sample"),
        Signature(
            "flip", (Parameter("p", "share", 0.5, "probability"),), "mirror left and right, in training only"
        ),
        Signature(
            "crop",
            (
                Parameter("size", "size | [size]", doc="height and width"),
                Parameter("padding", "natural", 0, "zeros around the image before the crop"),
            ),
            "random crop in training, centre crop otherwise",
        ),
        # Through kornia, in training only.
        Signature(
            "random_resized_crop",
            (
                Parameter("size", "size | [size]", doc="height and width"),
                Parameter("scale", "[float]", [0.08, 1.0], "least and largest share of the image's area"),
                Parameter("ratio", "[float]", [0.75, 1.3333333333333333], "least and largest width over height"),
            ),
            "a random part of the image, scaled; the largest centred part otherwise",
        ),
        Signature(
            "color_jitter",
            (
                Parameter("brightness", "rate", 0.8, "largest change of the factor 1"),
                Parameter("contrast", "rate", 0.8, "largest change of the factor 1"),
                Parameter("saturation", "rate", 0.8, "largest change of the factor 1"),
                Parameter("hue", "rate", 0.2, "largest turn of the hue, a whole turn being 1"),
                Parameter("p", "share", 0.8, "probability"),
            ),
            "brightness, contrast, saturation and hue changed in any order, of images from 0 to 1",
        ),
        Signature("grayscale", (Parameter("p", "share", 0.2, "probability"),), "three channels without colour"),
        Signature(
            "gaussian_blur",
            (
                Parameter("kernel", "size", doc="side of the kernel, odd"),
                Parameter("sigma", "[float]", [0.1, 2.0], "least and largest standard deviation, in pixels"),
                Parameter("p", "share", 0.5, "probability"),
            ),
            "Gaussian blur, each image with a width of its own",
        ),
        Signature(
            "solarize",
            (
                Parameter("threshold", "share", 0.5, "brightness above which pixels are turned"),
                Parameter("p", "share", 0.2, "probability"),
            ),
            "1 - pixel where it is bright, of images from 0 to 1",
        ),
    )
)

_LABELS = Parameter("classes", "size", 10, "number of classes: the first pixels hold the label, one for each class")
_INK = Parameter("value", "float", 1.0, "pixel of the class")

CONTRASTS = vocabulary(
    (
        Signature(
            "label_overlay",
            (
                Parameter(
                    "negatives",
                    "'wrong_label' | 'hard'",
                    "wrong_label",
                    "another class: any, or in training by how probable the run predicts it to be",
                ),
                _LABELS,
                _INK,
            ),
            "each sample twice: with its own label written over the first pixels, then with another",
        ),
        Signature(
            "mixed_images",
            (Parameter("blur", "natural", 20, "times that the random mask is blurred by [1, 2, 1] / 4 each way"),),
            "each sample, then a mixture of it with another one under a mask of large blobs",
        ),
    )
)

OVERLAYS = vocabulary(
    (
        Signature(
            "label_overlay",
            (Parameter("label", "'neutral'", doc="1 / classes of the pixel for every class"), _LABELS, _INK),
            "the network's input with a label written over its first pixels",
        ),
    )
)

PREDICTORS = vocabulary(
    (
        Signature("output", (), "the network's output"),
        Signature("readout", (Parameter("name", "str", doc="an entry of `readouts`"),), "a readout's prediction"),
        Signature(
            "goodness",
            (
                Parameter("skip", "natural", 1, "first blocks that do not count"),
                _LABELS,
                _INK,
                Parameter("reduction", "'sum' | 'mean'", "sum", "over the squares of a block's output"),
            ),
            "for each class the goodness of the input with that label: squares of the blocks' outputs",
        ),
    )
)

_CLASSES = Parameter("classes", "size", 10, "number of outputs")
_CHANNELS_IN = Parameter("channels", "size", 3, "input channels")

ZOO = vocabulary(
    (
        Signature(
            "mlp",
            (
                Parameter("widths", "[size]", doc="features from input to output"),
                Parameter("activation", "str", "relu", "an activation layer"),
                Parameter("dropout", "share", 0.0, "after every hidden activation"),
                Parameter("bias", "bool", True, "add learned biases"),
            ),
            "linear maps with activations between, input flattened",
        ),
        Signature(
            "autoencoder",
            (
                Parameter(
                    "widths",
                    "[size]",
                    [784, 1000, 500, 250, 30, 250, 500, 1000, 784],
                    "features from input to output; the narrowest is the code",
                ),
                Parameter("activation", "str", "tanh", "an activation layer"),
                Parameter("code", "str", "linear", "the activation of the code, or linear"),
                Parameter("size", "positive", 1.0, "factor on all widths but the first and the last"),
                Parameter("depth", "size", 1, "how often the layers of half the largest width stand there"),
            ),
            "the deep autoencoder of Hinton and Salakhutdinov 2006, with a linear output of pixel logits",
        ),
        Signature(
            "lenet5",
            (
                _CLASSES,
                Parameter("channels", "size", 1, "input channels"),
                Parameter("activation", "str", "tanh", ""),
            ),
            "LeCun et al. 1998, for 28x28 or 32x32 images",
        ),
        Signature(
            "resnet18",
            (
                _CLASSES,
                Parameter("stem", "'cifar' | 'imagenet'", "cifar", "first convolution and pooling"),
                _CHANNELS_IN,
                Parameter("width", "size", 64, "channels of the first stage"),
            ),
            "He et al. 2016, 18 layers",
        ),
        Signature(
            "elman",
            (
                Parameter("image", "[size]", [1, 28, 28], "shape of the input, which is read in its order"),
                Parameter("steps", "size", 28, "time steps; 28 reads rows of 28 x 28 pixels, 784 one pixel each"),
                Parameter("hidden", "size", 15, "units of the cell"),
                Parameter("activation", "str", "tanh", "an activation layer"),
                Parameter("readout", "'last' | 'sequence'", "last", "sequence: rectified units of all steps"),
                _CLASSES,
            ),
            "Elman 1990, a recurrent cell over the parts of its input; between steps go pre-activations",
        ),
        Signature(
            "localmixer",
            (
                Parameter("image", "[size]", [3, 32, 32], "channels, height and width of the input"),
                Parameter("side", "size", 8, "patches along each axis"),
                Parameter("blocks", "size", 4, "the first one embeds patches, the others mix them"),
                Parameter("channels", "size", 512, "features of a patch"),
                Parameter("groups", "size", 16, "channel groups that meet in one layer of each block"),
                _CLASSES,
                Parameter("pre_norm", "bool", True, "layer norms before linear maps too, not only after them"),
                Parameter("readout_norm", "bool", True, "a layer norm before the readout"),
                Parameter(
                    "init",
                    "'kaiming' | 'lecun' | 'constant'",
                    "kaiming",
                    "std of weights: 2 / sqrt(fan_in), 1 / sqrt(fan_in), both at most 0.1, or 0.1",
                ),
            ),
            "Ren et al. 2023, an MLP mixer with channel groups",
        ),
    )
)

_LOW_HIGH = (
    Parameter("low", "float", 0.0, "smallest value"),
    Parameter("high", "float", 1.0, "largest value"),
)
_MEAN_STD = (Parameter("mean", "float", 0.0, "mean"), Parameter("std", "rate", 1.0, "standard deviation"))
_GAIN = Parameter("gain", "float", 1.0, "factor")
_KAIMING = (
    Parameter("slope", "float", 0.0, "negative slope of the rectifier after it"),
    Parameter("mode", "'fan_in' | 'fan_out'", "fan_in", "whose variance is kept: forward or backward"),
    Parameter("nonlinearity", "str", "leaky_relu", "activation after it, as in torch.nn.init.calculate_gain"),
)

INITS = vocabulary(
    (
        Signature("uniform", _LOW_HIGH, "uniform"),
        Signature("normal", _MEAN_STD, "normal"),
        Signature(
            "trunc_normal",
            (
                *_MEAN_STD,
                Parameter("low", "float", -2.0, "smallest value"),
                Parameter("high", "float", 2.0, "largest value"),
            ),
            "normal, redrawn outside [low, high]",
        ),
        Signature("constant", (Parameter("value", "float", doc="the value"),), "one value"),
        Signature("zeros", (), "0"),
        Signature("ones", (), "1"),
        Signature("eye", (), "identity matrix"),
        Signature("dirac", (Parameter("groups", "size", 1, "channel groups"),), "identity convolution"),
        Signature("xavier_uniform", (_GAIN,), "Glorot and Bengio 2010"),
        Signature("xavier_normal", (_GAIN,), "Glorot and Bengio 2010"),
        Signature("kaiming_uniform", _KAIMING, "He et al. 2015"),
        Signature("kaiming_normal", _KAIMING, "He et al. 2015"),
        Signature("orthogonal", (_GAIN,), "Saxe et al. 2014"),
        Signature(
            "sparse",
            (
                Parameter("sparsity", "share", doc="share of zeros per column"),
                Parameter("std", "rate", 0.01, "standard deviation"),
            ),
            "Martens 2010",
        ),
    )
)

METRICS = vocabulary(
    (
        Signature("accuracy", (), "share of samples whose largest output is the target class"),
        Signature("top5", (), "share of samples whose target class is among the five largest outputs"),
        Signature("error", (), "1 - accuracy"),
        Signature("perplexity", (), "exp of the mean cross-entropy"),
    )
)

PERIODS = vocabulary(
    (
        Signature("every", (Parameter("n", "size | 'epoch' | 'step'", doc="steps, or the word"),), "how often"),
        Signature("none", (), "never"),
    )
)

STOPS = vocabulary(
    (
        Signature(
            "patience",
            (
                Parameter("n", "size", doc="validations without improvement"),
                Parameter("metric", "str", "loss", "what must improve"),
                Parameter("min_delta", "rate", 0.0, "least improvement that counts"),
            ),
            "stop when a metric no longer improves",
        ),
    )
)
