# The truth of configuration. No message waits for it: while it is stopped, operators cannot change anything.
resource "google_sql_database_instance" "config" {
  name                = "recado"
  region              = var.region
  database_version    = "POSTGRES_17"
  deletion_protection = true

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE" # the other edition has no small machines
    availability_type = "ZONAL"
    disk_autoresize   = true

    connector_enforcement       = "REQUIRED" # only with a certificate that IAM has given out
    deletion_protection_enabled = true

    ip_configuration {
      ipv4_enabled = true # the way of Cloud Run's socket and of the Auth Proxy; no network is authorized
      ssl_mode     = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
    }
  }

  lifecycle {
    ignore_changes = [settings[0].activation_policy] # stopping it to save money is not undone by a release
  }

  depends_on = [google_project_service.api]
}

resource "google_sql_database" "config" {
  name     = "recado"
  instance = google_sql_database_instance.config.name
}

resource "google_project_iam_member" "database_client" {
  for_each = { for name in ["api", "migrate"] : name => local.readers[name] }

  project = var.project
  role    = "roles/cloudsql.client"
  member  = each.value
}
