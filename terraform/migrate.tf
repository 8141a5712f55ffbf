# Brings the configuration's schema to the release's and publishes what waits; the pipeline runs it before the traffic
# moves. Migrations only add, so the release that still has the traffic keeps working.
resource "google_service_account" "migrate" {
  account_id   = "recado-migrate"
  display_name = "Recado: migrates the configuration"
}

resource "google_cloud_run_v2_job" "migrate" {
  count = var.release == "" ? 0 : 1

  name                = "migrate"
  location            = var.region
  deletion_protection = false

  template {
    template {
      service_account = google_service_account.migrate.email
      timeout         = "600s"
      max_retries     = 1

      containers {
        image   = local.image
        command = ["launcher"] # of the buildpacks: it sets Python's path
        args    = ["python", "-m", "shared.cli.main", "migrate"]

        env {
          name  = "GOOGLE_CLOUD_PROJECT"
          value = var.project
        }
        env {
          name = "DATABASE_URL"
          value_source {
            secret_key_ref {
              secret  = "database-url"
              version = "latest"
            }
          }
        }

        volume_mounts {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }
      }

      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [google_sql_database_instance.config.connection_name]
        }
      }
    }
  }

  depends_on = [google_secret_manager_secret_iam_member.reader, google_project_iam_member.database_client]
}
