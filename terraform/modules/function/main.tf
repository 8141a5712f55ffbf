locals {
  service = replace(var.name, "_", "-")
  live    = var.live == "" ? var.release : var.live
  source  = "functions/${var.name}/main.py"
}

resource "google_service_account" "function" {
  account_id   = "recado-${local.service}"
  display_name = "Recado: ${var.name}"
}

resource "google_cloud_run_v2_service" "function" {
  count = var.release == "" ? 0 : 1

  name                = local.service
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false # it keeps nothing

  # Telegram, Meta, developers and browsers have no Google account: each function itself checks who calls, pushes
  # included (docs/adr/0001). This way, unlike a role for allUsers, also works where an organization forbids those.
  invoker_iam_disabled = true

  # A record only: Cloud Run shows what the function is and was built from, but Terraform's provider builds nothing
  # (hashicorp/terraform-provider-google#22263). The pipeline has built the image from this archive.
  build_config {
    source_location          = var.archive
    function_target          = var.name
    image_uri                = var.image
    enable_automatic_updates = false # a release is the same image wherever and whenever it runs
    environment_variables    = { GOOGLE_FUNCTION_SOURCE = local.source }
  }

  template {
    revision                         = "${local.service}-${var.release}"
    service_account                  = google_service_account.function.email
    timeout                          = var.timeout
    max_instance_request_concurrency = var.concurrency

    scaling {
      min_instance_count = 0
      max_instance_count = var.max_instances
    }

    containers {
      image = var.image

      resources {
        limits            = { cpu = "1", memory = var.memory }
        cpu_idle          = true # billed while it answers
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(
          { for variable, value in var.environment : variable => value if value != "" },
          {
            FUNCTION_SOURCE   = local.source # the image holds all functions and has one of them as its default
            FUNCTION_TARGET   = var.name
            FUNCTION_USE_ASGI = "1"
            PYTHONPATH        = "/workspace" # the framework itself only knows the folder of FUNCTION_SOURCE
          }
        )
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = var.database == "" ? [] : ["cloudsql"]
        content {
          name       = volume_mounts.value
          mount_path = "/cloudsql"
        }
      }
    }

    dynamic "volumes" {
      for_each = var.database == "" ? [] : ["cloudsql"]
      content {
        name = volumes.value
        cloud_sql_instance {
          instances = [var.database]
        }
      }
    }
  }

  traffic {
    type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
    revision = "${local.service}-${local.live}"
    percent  = 100
  }

  dynamic "traffic" { # the newest revision can be tried at its own address before anybody else reaches it
    for_each = local.live == var.release ? [] : ["next"]
    content {
      type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
      revision = "${local.service}-${var.release}"
      percent  = 0
      tag      = traffic.value
    }
  }
}
