//! Strings of several elements, decoded in place: ziplists, listpacks, intsets and zipmaps.

pub(crate) mod entry;
pub(crate) mod intset;
pub(crate) mod listpack;
pub(crate) mod ziplist;
pub(crate) mod zipmap;
