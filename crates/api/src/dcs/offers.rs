//! The zones, maintenance windows and specifications that a cloud offers. The service creates no
//! servers; clients only read these lists before they create an instance. The lists are the same
//! for every project.

use cachevault_app::AppError;
use cachevault_domain::Action;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Identity;

/// The tests of one client expect three zones. The choice of a zone has no effect.
const ZONES: [&str; 3] = ["cachevault-1", "cachevault-2", "cachevault-3"];
/// The specification that clients search for before they create an instance.
const SPEC_CODE: &str = "redis.ha.xu1.tiny.r2.128";
const CAPACITY: &str = "0.125";
/// The supported versions, by major and minor number.
const ENGINE_VERSIONS: &str = "5.0;6.0;7.0;7.2;7.4;8.0";

/// Requires the permission to list instances.
pub(crate) fn may_choose(identity: &Identity) -> Result<(), AppError> {
    identity.caller.may(Action::ListInstances)?;
    Ok(())
}

/// An availability zone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Zone {
    #[schema(example = "cachevault-1")]
    id: &'static str,
    code: &'static str,
    name: &'static str,
    #[schema(example = "443")]
    port: &'static str,
    /// `true`, as text.
    #[schema(example = "true")]
    resource_availability: &'static str,
}

fn zones() -> Vec<Zone> {
    let zone =
        |name| Zone { id: name, code: name, name, port: "443", resource_availability: "true" };
    ZONES.map(zone).into()
}

/// The availability zones in the format of v2.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Zones {
    region_id: String,
    available_zones: Vec<Zone>,
}

impl Zones {
    pub(crate) fn of(region: &str) -> Self {
        Self { region_id: region.to_owned(), available_zones: zones() }
    }
}

/// The availability zones in the format of v1.0. The documents spell the region's field in two
/// ways; both are sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ZonesTwice {
    #[serde(rename = "regionId")]
    region: String,
    #[serde(flatten)]
    zones: Zones,
}

impl ZonesTwice {
    pub(crate) fn of(region: &str) -> Self {
        Self { region: region.to_owned(), zones: Zones::of(region) }
    }
}

/// The maintenance windows: one for each hour of the day, UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Windows {
    maintain_windows: Vec<Window>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Window {
    #[schema(example = 19)]
    seq: u8,
    #[schema(example = "18")]
    begin: String,
    #[schema(example = "19")]
    end: String,
    default: bool,
}

impl Windows {
    pub(crate) fn all() -> Self {
        const DEFAULT: u8 = 2;
        let window = |hour: u8| Window {
            seq: hour + 1,
            begin: format!("{hour:02}"),
            end: format!("{:02}", (hour + 1) % 24),
            default: hour == DEFAULT,
        };
        Self { maintain_windows: (0..24).map(window).collect() }
    }
}

/// The specifications in the format of v1.0.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Products {
    products: Vec<Product>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Product {
    #[schema(example = "redis.ha.xu1.tiny.r2.128-h")]
    product_id: String,
    #[schema(example = "redis.ha.xu1.tiny.r2.128")]
    spec_code: &'static str,
    cache_mode: &'static str,
    product_type: &'static str,
    cpu_type: &'static str,
    storage_type: &'static str,
    details: ProductDetails,
    engine: &'static str,
    engine_versions: &'static str,
    spec_details: String,
    spec_details2: String,
    charging_type: &'static str,
    /// Always 0: the service charges nothing.
    price: f64,
    currency: &'static str,
    prod_type: &'static str,
    cloud_service_type_code: &'static str,
    cloud_resource_type_code: &'static str,
    flavors: Vec<ProductZones>,
    billing_factor: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct ProductDetails {
    capacity: f64,
    max_bandwidth: u32,
    max_clients: u32,
    max_connections: u32,
    max_in_bandwidth: u32,
    max_memory: f64,
    tenant_ip_count: u32,
    sharding_num: u32,
    proxy_num: u32,
    db_number: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct ProductZones {
    capacity: &'static str,
    unit: &'static str,
    available_zones: [&'static str; 3],
}

impl Products {
    pub(crate) fn all() -> Self {
        let details = ProductDetails {
            capacity: 0.125,
            max_bandwidth: 0,
            max_clients: 0,
            max_connections: 0,
            max_in_bandwidth: 0,
            max_memory: 0.125,
            tenant_ip_count: 2,
            sharding_num: 1,
            proxy_num: 0,
            db_number: 16,
        };
        Self {
            products: vec![Product {
                product_id: format!("{SPEC_CODE}-h"),
                spec_code: SPEC_CODE,
                cache_mode: "ha",
                product_type: "generic",
                cpu_type: "x86_64",
                storage_type: "DRAM",
                details,
                engine: "redis",
                engine_versions: ENGINE_VERSIONS,
                spec_details: String::new(),
                spec_details2: String::new(),
                charging_type: "Hourly",
                price: 0.0,
                currency: "EUR",
                prod_type: "instance",
                cloud_service_type_code: "",
                cloud_resource_type_code: "",
                flavors: vec![ProductZones {
                    capacity: CAPACITY,
                    unit: "GB",
                    available_zones: ZONES,
                }],
                billing_factor: "",
            }],
        }
    }
}

/// The specifications in the format of v2.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Flavors {
    flavors: Vec<Flavor>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Flavor {
    #[schema(example = "redis.ha.xu1.tiny.r2.128")]
    spec_code: &'static str,
    cloud_service_type_code: &'static str,
    cloud_resource_type_code: &'static str,
    cache_mode: &'static str,
    engine: &'static str,
    engine_version: &'static str,
    product_type: &'static str,
    cpu_type: &'static str,
    storage_type: &'static str,
    capacity: Vec<&'static str>,
    billing_mode: Vec<&'static str>,
    tenant_ip_count: u32,
    pricing_type: &'static str,
    is_dec: bool,
    attrs: Vec<FlavorAttribute>,
    flavors_available_zones: Vec<FlavorZones>,
    replica_count: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct FlavorAttribute {
    capacity: &'static str,
    name: &'static str,
    value: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct FlavorZones {
    capacity: &'static str,
    unit: &'static str,
    available_zones: [&'static str; 3],
    az_codes: [&'static str; 3],
}

impl Flavors {
    pub(crate) fn all() -> Self {
        Self {
            flavors: vec![Flavor {
                spec_code: SPEC_CODE,
                cloud_service_type_code: "",
                cloud_resource_type_code: "",
                cache_mode: "ha",
                engine: "redis",
                engine_version: ENGINE_VERSIONS,
                product_type: "generic",
                cpu_type: "x86_64",
                storage_type: "DRAM",
                capacity: vec![CAPACITY],
                billing_mode: vec!["Hourly"],
                tenant_ip_count: 2,
                pricing_type: "tier",
                is_dec: false,
                attrs: vec![FlavorAttribute {
                    capacity: CAPACITY,
                    name: "sharding_num",
                    value: "1",
                }],
                flavors_available_zones: vec![FlavorZones {
                    capacity: CAPACITY,
                    unit: "GB",
                    available_zones: ZONES,
                    az_codes: ZONES,
                }],
                replica_count: 2,
            }],
        }
    }
}
