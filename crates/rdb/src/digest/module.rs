//! Hashes of module values: vector sets in a canonical form, all others by their identifier only.

use crate::digest::gather::Gather;
use crate::raw::{ModuleId, ModulePart};

/// The module's name and the version of its encoding (`vset.c`).
const VECTOR_SET: (&str, u64) = ("vectorset", 0);
const HAS_MATRIX: u64 = 1;
const HAS_ATTRIBUTES: u64 = 2;
/// The default of `M` (`vset.c`).
const USUAL_M: u64 = 16;
/// The only quantization with a valid range of a node; others leave the range unset.
const QUANTIZED_8_BITS: u64 = 1;
/// From this version on, a parameter for the worst link follows the layers of a node.
const WORST_LINK_VERSION: u64 = 1;

/// The hash of an incomplete module value.
#[derive(Debug, Default)]
pub(super) struct ModuleHash {
    module: ModuleId,
    vector_set: Option<VectorSet>,
}

/// The hash of a module's value.
pub(super) struct Hashed {
    pub(super) value: u128,
    pub(super) elements: u64,
    /// Whether the hash covers more than the identifier.
    pub(super) is_compared: bool,
}

impl ModuleHash {
    pub(super) fn new(module: ModuleId) -> Self {
        let is_vector_set = module.version() == VECTOR_SET.1 && module.name() == VECTOR_SET.0;
        Self { module, vector_set: is_vector_set.then(VectorSet::default) }
    }

    pub(super) fn part(&mut self, part: ModulePart) {
        let fits = match (&mut self.vector_set, part) {
            (Some(vector_set), ModulePart::Unsigned(number)) => vector_set.number(number),
            _ => None,
        };
        if fits.is_none() {
            self.vector_set = None;
        }
    }

    pub(super) fn text(&mut self, bytes: &[u8], is_last: bool) {
        let vector_set = self.vector_set.as_mut();
        if vector_set.and_then(|vector_set| vector_set.text(bytes, is_last)).is_none() {
            self.vector_set = None;
        }
    }

    pub(super) fn finish(&mut self) -> Hashed {
        let mut record = Gather::default();
        record.push(&self.module.0.to_le_bytes());
        match self.vector_set.take().and_then(|vector_set| vector_set.finish(&mut record)) {
            Some((value, elements)) => Hashed { value, elements, is_compared: true },
            None => Hashed { value: record.hash(), elements: 0, is_compared: false },
        }
    }
}

/// A vector set, whose parts come in the order of `VectorSetRdbSave`. The methods return `None` for
/// data that does not fit this layout.
#[derive(Debug, Default)]
struct VectorSet {
    phase: Phase,
    text: Gather,
    /// Dimension, quantization, M, input dimension.
    head: [u64; 4],
    matrix: u128,
    nodes_left: u64,
    flags: u64,
    node: Node,
    nodes: u128,
    node_count: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Phase {
    #[default]
    Dimension,
    Count,
    Config,
    Flags,
    InputDimension,
    Matrix,
    Element,
    Attributes,
    Vector,
    ParameterCount,
    Parameter,
    Done,
}

impl VectorSet {
    fn number(&mut self, number: u64) -> Option<()> {
        match self.phase {
            Phase::Dimension => (self.head[0], self.phase) = (number, Phase::Count),
            Phase::Count => (self.nodes_left, self.phase) = (number, Phase::Config),
            Phase::Config => {
                let m = number >> 8;
                (self.head[1], self.head[2]) = (number & 0xFF, if m == 0 { USUAL_M } else { m });
                self.phase = Phase::Flags;
            }
            Phase::Flags => {
                self.flags = number;
                let has_matrix = number & HAS_MATRIX != 0;
                self.phase = if has_matrix { Phase::InputDimension } else { self.next_node() };
            }
            Phase::InputDimension => (self.head[3], self.phase) = (number, Phase::Matrix),
            Phase::ParameterCount => {
                self.node.parameters_left = Some(number).filter(|count| *count > 0)?;
                self.phase = Phase::Parameter;
            }
            Phase::Parameter => {
                self.node.parameter(number)?;
                if self.node.parameters_left == 0 {
                    self.nodes = self.nodes.wrapping_add(self.node.finish(self.head[1])?);
                    self.node_count += 1;
                    self.phase = self.next_node();
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn next_node(&mut self) -> Phase {
        match self.nodes_left.checked_sub(1) {
            None => Phase::Done,
            Some(left) => {
                (self.nodes_left, self.node) = (left, Node::default());
                Phase::Element
            }
        }
    }

    fn text(&mut self, bytes: &[u8], is_last: bool) -> Option<()> {
        let is_expected = matches!(
            self.phase,
            Phase::Matrix | Phase::Element | Phase::Attributes | Phase::Vector
        );
        if !is_expected {
            return None;
        }
        self.text.push(bytes);
        if !is_last {
            return Some(());
        }
        let hash = self.text.hash();
        match self.phase {
            Phase::Matrix => (self.matrix, self.phase) = (hash, self.next_node()),
            Phase::Element => {
                self.node.texts[0] = hash;
                // Attributes of a node without attributes are the empty string, whether or not they
                // were saved.
                self.node.texts[1] = self.text.hash();
                let has_attributes = self.flags & HAS_ATTRIBUTES != 0;
                self.phase = if has_attributes { Phase::Attributes } else { Phase::Vector };
            }
            Phase::Attributes => (self.node.texts[1], self.phase) = (hash, Phase::Vector),
            _ => (self.node.texts[2], self.phase) = (hash, Phase::ParameterCount),
        }
        Some(())
    }

    /// The value, with the module's identifying data before it, and the number of nodes.
    fn finish(self, record: &mut Gather) -> Option<(u128, u64)> {
        if self.phase != Phase::Done {
            return None;
        }
        for number in self.head {
            record.push(&number.to_le_bytes());
        }
        record.push(&self.matrix.to_le_bytes());
        Some((record.hash().wrapping_add(self.nodes), self.node_count))
    }
}

/// A node, whose parameters come in the order of `hnsw_serialize_node`: its place in the graph,
/// which the server draws at random, and then the scale of its vector.
#[derive(Debug, Default)]
struct Node {
    /// Hashes of element, attributes and vector.
    texts: [u128; 3],
    parameters_left: u64,
    place: Place,
    layers_left: u64,
    has_worst_link: bool,
    scale: u64,
}

/// The meaning of the next parameter.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Place {
    #[default]
    Id,
    Level,
    LinkCount,
    /// The number of links in the layer.
    LinkMaximum(u64),
    /// The number of parameters that remain in the layer.
    Links(u64),
    Scale,
    Done,
}

impl Node {
    fn parameter(&mut self, number: u64) -> Option<()> {
        self.parameters_left = self.parameters_left.checked_sub(1)?;
        self.place = match self.place {
            Place::Id => Place::Level,
            Place::Level => {
                self.layers_left = number & 0xFF;
                self.has_worst_link = number >> 24 & 0xFF >= WORST_LINK_VERSION;
                Place::LinkCount
            }
            Place::LinkCount => Place::LinkMaximum(number),
            Place::LinkMaximum(links) => {
                self.after_link(links.checked_add(u64::from(self.has_worst_link))?)
            }
            Place::Links(left) => self.after_link(left - 1),
            Place::Scale => {
                self.scale = number;
                Place::Done
            }
            Place::Done => return None,
        };
        Some(())
    }

    fn after_link(&mut self, left: u64) -> Place {
        if left > 0 {
            return Place::Links(left);
        }
        match self.layers_left.checked_sub(1) {
            Some(layers) => {
                self.layers_left = layers;
                Place::LinkCount
            }
            None => Place::Scale,
        }
    }

    /// The node's hash, if its parameters are complete.
    fn finish(&self, quantization: u64) -> Option<u128> {
        if !matches!(self.place, Place::Scale | Place::Done) {
            return None;
        }
        let is_range_set = quantization == QUANTIZED_8_BITS;
        let scale = if is_range_set { self.scale } else { self.scale & u64::from(u32::MAX) };
        let mut record = Gather::default();
        for hash in self.texts {
            record.push(&hash.to_le_bytes());
        }
        record.push(&scale.to_le_bytes());
        Some(record.hash())
    }
}
