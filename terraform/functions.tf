locals {
  functions = {
    ingest = {
      memory        = "512Mi"
      concurrency   = 80
      timeout       = "60s"
      max_instances = 20
      secrets       = {}
    }
    run_agent = {
      memory        = "1Gi" # the model library alone takes 180 MiB
      concurrency   = 20    # runs wait for models most of the time
      timeout       = "600s"
      max_instances = 50
      secrets       = local.model_secrets
    }
    callbacks = {
      memory        = "512Mi"
      concurrency   = 40
      timeout       = "180s"
      max_instances = 10
      secrets       = {}
    }
    api = {
      memory        = "512Mi"
      concurrency   = 80
      timeout       = "3600s" # streams of events
      max_instances = 4       # of 5 connections each: the smallest database has 25
      secrets       = { DATABASE_URL = "database-url" }
    }
  }

  # Known before the services are, which is why they can be told their own addresses:
  # https://cloud.google.com/run/docs/triggering/https-request#deterministic
  urls = {
    for name in keys(local.functions) :
    name => "https://${replace(name, "_", "-")}-${local.number}.${var.region}.run.app"
  }

  # A token for one function is worth nothing at another.
  audiences = { for name in ["run_agent", "callbacks"] : name => local.urls[name] }
}

module "function" {
  source   = "./modules/function"
  for_each = local.functions

  name    = each.key
  project = var.project
  region  = var.region
  release = var.release
  live    = var.live
  image   = local.image
  archive = "gs://${google_storage_bucket.source.name}/${var.release}.zip"

  memory        = each.value.memory
  concurrency   = each.value.concurrency
  timeout       = each.value.timeout
  max_instances = each.value.max_instances

  environment = {
    GOOGLE_CLOUD_PROJECT        = var.project
    LOG_LEVEL                   = var.log_level
    RECADO_ADDRESSES            = jsonencode(local.urls)
    RECADO_FILES                = "gs://${google_storage_bucket.files.name}"
    RECADO_FIREBASE_CONFIG      = var.firebase_config
    RECADO_PUSH_AUDIENCE        = lookup(local.audiences, each.key, "")
    RECADO_PUSH_SERVICE_ACCOUNT = google_service_account.push.email
    RECADO_RETENTION_DAYS       = tostring(var.retention_days)
    RECADO_WEB_CONNECTION       = var.web_connection
    RECADO_WEB_ORIGIN           = var.web_origin == "" ? "https://${var.project}.web.app" : var.web_origin
  }
  secrets  = merge({ RECADO_PLATFORM_KEY = "platform-key" }, each.value.secrets)
  database = contains(keys(each.value.secrets), "DATABASE_URL") ? google_sql_database_instance.config.connection_name : ""
}
