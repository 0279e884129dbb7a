"""What do mistakes with data look like? 0600 to 0618."""

from __future__ import annotations

from lpc.specs.examples.example import DATA, SHOWN, Example

DATA_EXAMPLES: dict[str, Example] = {
    "0600": Example(
        "A plan that was written by hand names a source that this lpc does not have; of a spec it is 0120.",
        "data: {source: digit}",
        "data: {source: digits}",
        SHOWN,
    ),
    "0601": Example(
        "This source reads files, and the spec does not say where they are.",
        "data: {source: mnist}",
        'data: {source: mnist, root: "${LPC_DATA}"}',
        SHOWN,
    ),
    "0602": Example(
        "There is nothing at the path of the data.",
        "data: {source: mnist, root: nowhere}",
        "data: {source: digits}",
        DATA,
    ),
    "0603": Example(
        "A file of the data is cut short, has other contents than its name says, or lacks values.",
        "train-images-idx3-ubyte: 47040000 bytes of 47040016",
        "train-images-idx3-ubyte: all 47040016 bytes",
        SHOWN,
    ),
    "0604": Example(
        "Fields of one split have different numbers of samples.",
        "60000 images and 10000 labels",
        "60000 images and 60000 labels",
        SHOWN,
    ),
    "0605": Example(
        "The data have no column or field of this name.",
        "data: {source: digits, columns: {image: picture}}",
        "data: {source: digits, columns: {image: image}}",
        DATA,
    ),
    "0606": Example(
        "Samples have another shape than the network's input.",
        "network: {inputs: {image: [1, 9, 9]}, layers: [flatten, fc1: linear(16), out: linear(10)]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: linear(10)]}",
        DATA,
    ),
    "0607": Example(
        "Samples are of another kind of number than the field.",
        "network: {zoo: mlp, inputs: {image: {shape: [1, 8, 8], dtype: int64}}, args: {widths: [64, 10]}}",
        "network: {zoo: mlp, inputs: {image: {shape: [1, 8, 8], dtype: float32}}, args: {widths: [64, 10]}}",
        DATA,
    ),
    "0608": Example(
        "A column of text would have to be numbers.",
        "label: cat, dog, cat",
        "label: 0, 1, 0",
        SHOWN,
    ),
    "0609": Example(
        "This source is read by a library that is not installed.",
        "data: {source: imagefolder, root: photos}      # without `datasets`",
        "pip install 'lpc[data]'",
        SHOWN,
    ),
    "0610": Example(
        "The data set cannot be loaded from the hub, or there is none of this name.",
        "data: {source: huggingface(ylecun/mnits)}",
        'data: {source: huggingface("ylecun/mnist")}',
        SHOWN,
    ),
    "0611": Example(
        "Arrays of Python objects are pickles, which run code when they are read.",
        "numpy.savez('train.npz', image=array_of_objects)",
        "numpy.savez('train.npz', image=array.astype('float32'))",
        SHOWN,
    ),
    "0612": Example(
        "A split has no samples.",
        "data: {source: digits, test: 0.0001}",
        "data: {source: digits, test: 0.1}",
        DATA,
    ),
    "0613": Example(
        "The source has no split of this name.",
        "data: {source: digits, test: holdout}",
        "data: {source: digits, test: 0.2}",
        DATA,
    ),
    "0614": Example(
        "The shares leave no samples to train on.",
        "data: {source: digits, test: 0.5, validation: 0.5}",
        "data: {source: digits, test: 0.2, validation: 0.1}",
        DATA,
    ),
    "0615": Example(
        "A plan that was written by hand has a transform that this lpc does not know, or with other arguments.",
        "transforms: [normalise(0.5, 0.25)]",
        "transforms: [normalize(0.5, 0.25)]",
        SHOWN,
    ),
    "0616": Example(
        "A transform cannot work on samples of this shape.",
        "data: {source: digits, transforms: [crop(9)]}",
        "data: {source: digits, transforms: [crop(8)]}",
        DATA,
    ),
    "0617": Example(
        "An image cannot be decoded, or is of another size or mode than the first.",
        "1.png of 28 x 28 pixels, 2.png of 28 x 27",
        "both of 28 x 28 pixels, or imagefolder(size=28)",
        SHOWN,
    ),
    "0618": Example(
        "The lists in a column have different lengths.",
        "tokens: [1, 2], [3]",
        "tokens: [1, 2], [3, 0]",
        SHOWN,
    ),
}
