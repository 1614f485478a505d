//! Strings that hold several elements: ziplists, listpacks, intsets and zipmaps, walked in place.

pub(crate) mod entry;
pub(crate) mod intset;
pub(crate) mod listpack;
pub(crate) mod ziplist;
pub(crate) mod zipmap;
